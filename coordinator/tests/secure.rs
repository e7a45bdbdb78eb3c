//! TLS and roles between real processes: who is let in, what he may do, and what everybody else is told.

mod common;

use std::process::Command;

use common::{Cluster, Result, STILL};
use partita_tls::authority::{Authority, Subject};
use partita_tls::{Options, Role};
use tempfile::TempDir;

/// Files of a CA.
struct Files {
    directory: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Result<Self> {
        let (directory, authority) = (TempDir::new()?, Authority::new("test", 1)?);
        authority.write(directory.path())?;
        Ok(Self { directory, authority })
    }

    fn enrol(&self, name: &str, role: Option<Role>, days: i64) -> Result<Options> {
        let hosts = ["127.0.0.1".to_owned(), name.to_owned()].to_vec();
        let subject = Subject { name: name.into(), hosts, role, days };
        Ok(self.authority.enrol(self.directory.path(), name, &subject)?)
    }
}

fn as_arguments(options: &Options) -> Vec<String> {
    let names = ["--tls-cert", "--tls-key", "--tls-ca"];
    let paths = [&options.certificate, &options.key, &options.ca];
    let given = names.into_iter().zip(paths).filter_map(|(name, path)| Some((name, path.as_ref()?)));
    given.flat_map(|(name, path)| [name.to_owned(), path.display().to_string()]).collect()
}

/// Asks as somebody: status and standard error.
fn ask(cluster: &Cluster, who: &[String], arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    let output = command.args(["--coordinator", &cluster.address()]).args(arguments).args(who).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn roles_decide_and_everybody_else_is_told_in_one_line_why_not() -> Result {
    let (ours, foreign) = (Files::new()?, Files::new()?);
    let head = as_arguments(&ours.enrol("head", Some(Role::Coordinator), 1)?);
    let agent = as_arguments(&ours.enrol("a", Some(Role::Host), 1)?).join(" ");
    let operator = as_arguments(&ours.enrol("operator", Some(Role::Operator), 1)?);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let cluster = Cluster::secured(&[STILL, &head].concat(), &operator, &[&format!("a {agent}")])?;

    // An application runs over it: submitted by an operator, carried out by the agent.
    let manifest = cluster.manifest(1, 5, 1, "")?;
    let ran = cluster.client(&["submit", "--wait", &manifest.display().to_string()])?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    common::assert_lines(&ran, 1, 5);

    let viewer = as_arguments(&ours.enrol("viewer", Some(Role::Viewer), 1)?);
    assert_eq!(ask(&cluster, &viewer, &["apps"])?.0, Some(0));
    let submit = ["submit", &manifest.display().to_string()];
    let told = [
        (viewer, &submit[..], "the role viewer may not do this: it takes the role operator"),
        (as_arguments(&ours.enrol("b", Some(Role::Host), 1)?), &["apps"], "takes the role viewer"),
        (as_arguments(&ours.enrol("nobody", None, 1)?), &["apps"], "a certificate without a role may not"),
        (as_arguments(&ours.enrol("late", Some(Role::Admin), -2)?), &["apps"], "has expired"),
        (
            as_arguments(&Options {
                ca: Some(ours.directory.path().join("ca.pem")),
                ..foreign.enrol("x", Some(Role::Admin), 1)?
            }),
            &["apps"],
            "does not know the CA of our certificate",
        ),
        (as_arguments(&foreign.enrol("y", Some(Role::Admin), 1)?), &["apps"], "not signed by the CA"),
        (
            vec!["--tls-ca".into(), ours.directory.path().join("ca.pem").display().to_string()],
            &["apps"],
            "wants a certificate",
        ),
        (Vec::new(), &["apps"], "needs --tls-cert"),
    ];
    for (who, arguments, text) in told {
        let (status, said) = ask(&cluster, &who, arguments)?;
        assert!(said.contains(text) && said.lines().count() == 1 && status != Some(0), "{text:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn plain_clients_and_foreign_hosts_are_refused() -> Result {
    let files = Files::new()?;
    let head = as_arguments(&files.enrol("head", Some(Role::Coordinator), 1)?);
    let operator = as_arguments(&files.enrol("operator", Some(Role::Operator), 1)?);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let cluster = Cluster::secured(&[STILL, &head].concat(), &operator, &[])?;
    let plain = Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["--coordinator", &cluster.address().replace("tls:", "tcp:"), "apps"])
        .output()?;
    assert!(!plain.status.success());
    // A host reports for itself and for nobody else.
    let other = as_arguments(&files.enrol("other", Some(Role::Host), 1)?);
    let target = cluster.address();
    let said = common::first_line_of_agent(&target, "a", &other, cluster.path())?;
    assert!(said.contains("not for a host called a"), "{said}");
    let foreign = Files::new()?;
    let wrong = foreign.enrol("a", Some(Role::Host), 1)?;
    let said = common::first_line_of_agent(&target, "a", &as_arguments(&wrong), cluster.path())?;
    assert!(said.contains("not signed by the CA of --tls-ca"), "{said}");
    Ok(())
}

#[test]
fn tokens_have_roles_with_and_without_certificates() -> Result {
    let files = TempDir::new()?;
    let tokens = files.path().join("tokens");
    let make = |role: &str, name: &str| -> Result<Vec<String>> {
        let output = Command::new(env!("CARGO_BIN_EXE_coordinator"))
            .args(["token", "--role", role, "--name", name, "--tokens"])
            .arg(&tokens)
            .output()?;
        let path = files.path().join(name);
        std::fs::write(&path, &output.stdout)?;
        Ok(vec!["--token-file".into(), path.display().to_string()])
    };
    let (viewer, operator) = (make("viewer", "v")?, make("operator", "o")?);
    let kept = std::fs::read_to_string(&tokens)?;
    assert_eq!(kept.lines().count(), 2);
    assert!(
        !kept.contains(std::fs::read_to_string(files.path().join("v"))?.trim()),
        "the token itself is kept"
    );
    std::fs::write(files.path().join("made-up"), "made-up")?;
    let made_up = vec!["--token-file".into(), files.path().join("made-up").display().to_string()];
    let certificates = Files::new()?;
    let head = as_arguments(&certificates.enrol("head", Some(Role::Coordinator), 1)?);
    let ca = ["--tls-ca".to_owned(), certificates.directory.path().join("ca.pem").display().to_string()];
    let tokens = tokens.display().to_string();
    let serve: Vec<&str> = STILL.iter().copied().chain(["--tokens", &tokens]).collect();
    let secure: Vec<&str> = serve.iter().copied().chain(head.iter().map(String::as_str)).collect();
    for (cluster, extra) in [
        (Cluster::secured(&secure, &[&ca[..], &operator].concat(), &[])?, &ca[..]),
        (Cluster::guarded(&serve, &operator)?, &[]),
    ] {
        let asked = |who: &[String], arguments: &[&str]| ask(&cluster, &[extra, who].concat(), arguments);
        assert_eq!(asked(&viewer, &["apps"])?.0, Some(0));
        let said = asked(&viewer, &["stop", "x-1"])?.1;
        assert!(said.contains("takes the role operator"), "{said}");
        assert!(asked(&operator, &["stop", "x-1"])?.1.contains("x-1"));
        assert!(asked(&made_up, &["apps"])?.1.contains("does not know this token"));
        let said = asked(&[], &["apps"])?.1;
        assert!(said.contains("wants to know who asks"), "{said}");
    }
    Ok(())
}

#[test]
fn made_certificates_are_what_a_cluster_needs_and_are_never_overwritten() -> Result {
    let directory = TempDir::new()?;
    let out = directory.path().join("made");
    let make = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.args(["certificates", "--name", "a,10.0.0.1", "--head", "head.example", "--out"]).arg(&out);
        command.output()
    };
    assert!(make()?.status.success());
    let file = |name: &str| Options {
        certificate: Some(out.join(format!("{name}.pem"))),
        key: Some(out.join(format!("{name}.key"))),
        ca: Some(out.join("ca.pem")),
    };
    let (head, agent) = (as_arguments(&file("coordinator")), as_arguments(&file("host-a")).join(" "));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let operator = as_arguments(&file("operator"));
    let cluster = Cluster::secured(&[STILL, &head].concat(), &operator, &[&format!("a {agent}")])?;
    assert_eq!(cluster.json(&["hosts"])?.as_array().map(Vec::len), Some(1));
    let key = std::fs::metadata(out.join("operator.key"))?;
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    let again = make()?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(2) && said.contains("name a new directory"), "{said}");
    Ok(())
}

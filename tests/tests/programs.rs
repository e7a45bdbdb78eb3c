//! Ordinary programs in one partition: output, exit status, faults, files that are no programs, and bad surroundings.

use std::io::Write;
use std::path::Path;

use partita_tests::partition::{Hold, Receiver};
use partita_tests::process::{Finished, Process};
use partita_tests::{Bench, Control, Failures, Result, amount, binaries, wait_for};

const VARIANTS: [&str; 3] = ["glibc", "glibc-pie", "musl"];

fn vmm_run(
    bench: &Bench,
    options: &[&str],
    elf: &Path,
    arguments: &[&str],
    stdin: Option<&Path>,
) -> Result<Finished> {
    let mut command = bench.vmm(["run"])?;
    command.args(options).arg(elf).args(arguments);
    bench.run(command, "run", stdin, 20)
}

fn native(bench: &Bench, name: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Result<Finished> {
    let mut command = bench.command(&binaries::guest(&format!("native/{name}"))?);
    command.env_clear().envs(variables.iter().copied()).args(arguments);
    bench.run(command, "native", None, 20)
}

fn show(done: &Finished) -> String {
    let stdout: String = String::from_utf8_lossy(&done.stdout).chars().take(800).collect();
    let stderr: String = done.stderr.chars().take(800).collect();
    format!("status {}, stdout {stdout:?}, stderr {stderr:?}", done.status)
}

/// Lines of the VMM on standard error.
fn said(done: &Finished) -> Vec<&str> {
    done.stderr.lines().filter(|line| line.starts_with("vmm: ")).collect()
}

#[test]
fn programs_print_and_end_as_on_linux() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    let calls = amount(1_000_000, 2_000).to_string();
    let operations = amount(20_000, 300).to_string();
    let million = amount(100, 1).to_string();
    let cases: [(&str, &[&str], i32); 6] = [
        ("hello", &[], 0),
        ("args", &["one", "two words", "", "ünïcode", "--flag=x"], 0),
        ("exit42", &[], 42),
        ("malloc_storm", &["1024", &operations, "7", "8192"], 0),
        ("clock", &[&calls], 0),
        ("compute", &[&million], 0),
    ];
    let variables = [("HELLO", "a b=c"), ("EMPTY", "")];
    for (name, arguments, status) in cases {
        let expected = native(&bench, name, &variables, arguments)?;
        for variant in VARIANTS {
            let elf = binaries::guest(&format!("{variant}/{name}"))?;
            let done = vmm_run(&bench, &["--env", "HELLO=a b=c", "--env", "EMPTY="], &elf, arguments, None)?;
            let right = done.status == status && done.stdout == expected.stdout && said(&done).is_empty();
            failures
                .check(right, || format!("{variant}/{name}: {}; natively {}", show(&done), show(&expected)));
        }
    }
    failures.check(bench.assert_nothing_left().is_ok(), || {
        format!("left: {:?} {:?}", bench.files(), bench.processes())
    });
    failures.finish()
}

#[test]
fn streams_and_files_are_passed_in() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    let bytes: Vec<u8> =
        (0..amount(3_000_000, 200_000) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (stream, mapped) = (bench.path().join("stream"), bench.path().join("mapped"));
    std::fs::write(&stream, &bytes)?;
    std::fs::write(&mapped, "some text\nof three\nlines\n".repeat(400))?;
    let map = format!("{}:/data/in.txt", mapped.display());
    for variant in VARIANTS {
        let done = vmm_run(&bench, &[], &binaries::guest(&format!("{variant}/cat"))?, &[], Some(&stream))?;
        let right = done.status == 0 && done.stdout == bytes;
        failures.check(right, || {
            format!("{variant}/cat: status {}, {} bytes, {}", done.status, done.stdout.len(), done.stderr)
        });
        let done =
            vmm_run(&bench, &["--file", &map], &binaries::guest(&format!("{variant}/files"))?, &[], None)?;
        let text = String::from_utf8_lossy(&done.stdout);
        let right = done.status == 0 && text.contains("stdio: 1200 lines") && text.ends_with("files: ok\n");
        failures.check(right && !text.contains("FAILED"), || format!("{variant}/files: {}", show(&done)));
    }
    failures.finish()
}

/// A partition with files moves while it writes them: those that are there when the move begins go as memory, what they grow by
/// meanwhile with the state. Then it moves on, as long as the program runs.
#[test]
fn files_move_with_their_partition() -> Result {
    let bench = Bench::new()?;
    let mapped = bench.path().join("mapped");
    std::fs::write(
        &mapped,
        (0..300_000).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    )?;
    let rounds = amount(50_000, 1000).to_string();
    let directory = bench.path().join("native");
    std::fs::create_dir(&directory)?;
    let arguments = [directory.to_str(), mapped.to_str(), Some(&rounds)].map(Option::unwrap_or_default);
    let expected = native(&bench, "archive", &[], &arguments)?;
    assert_eq!((expected.status, expected.stderr.as_str()), (0, ""));

    // Opened for both, so that neither end waits for the other.
    let fifo = bench.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let mut input = std::fs::File::options().read(true).write(true).open(&fifo)?;
    let hold = Hold::new(&bench, "source:Round(0)");
    let file = format!("{}:/data/in", mapped.display());
    let mut command = bench.vmm(["run", "--memory", "32M", "--file", &file, "--state-dir"])?;
    command.arg(bench.state()).arg(binaries::guest("glibc/archive")?).args(["/tmp", "/data/in", &rounds]);
    hold.apply(&mut command);
    let source = Process::start(command, &bench.path().join("log"), "archive", Some(&fifo))?;
    let says = |word: &str| {
        wait_for(&format!("the program to say {word:?}"), 20, || {
            Ok(String::from_utf8_lossy(&source.stdout()).contains(word).then_some(()))
        })
        .map_err(|e| format!("{e}\n{}", source.describe()))
    };
    says("small")?;
    let options = ["--timeout-s", "120", "--on-timeout", "force", "--downtime-limit-ms", "2000"];
    let mut control = Control::of_rank(&bench, 0);
    let mut receivers = Vec::new();
    while receivers.len() < 3 {
        let receiver = Receiver::start(&bench, receivers.len() as u32, &[], None)?;
        let mut migrate = control.start_migrate(&bench, &receiver.listen, &options)?;
        if receivers.is_empty() {
            hold.wait(&mut migrate)?;
            input.write_all(b"\n")?;
            says("big")?;
            hold.release();
        }
        if migrate.wait(30)? != 0 {
            assert!(!receivers.is_empty(), "{}", migrate.describe());
            break;
        }
        control = receiver.control.clone();
        receivers.push(receiver);
    }
    let mut output = source.stdout();
    for receiver in &mut receivers {
        assert_eq!(receiver.process.wait(60)?, 0, "{}", receiver.process.describe());
        output.extend(receiver.process.stdout());
    }
    println!("{} moves", receivers.len());
    let (ours, theirs) = (String::from_utf8_lossy(&output), String::from_utf8_lossy(&expected.stdout));
    assert_eq!(ours, theirs);
    Ok(())
}

#[test]
fn other_languages_run() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    let cpp = "hello from C++\ncaught: thrown on purpose, frames unwound: 11\nsteady clock forward: 1, date after 2019: 1\n";
    let fortran = "hello from Fortran 1 4 9 16 25\nsqrt(2) = 1.41421\n";
    let rust = "hello from Rust\narguments: [\"x y\"]\nHELLO is Some(\"1\")\nsum of squares: 332833500\nhook: true\n\
                panic caught: true\nclock forward: true\ndate after 2017: true\n";
    let cases = [
        ("hello-cpp", cpp),
        ("hello-cpp-pie", cpp),
        ("hello-f90", fortran),
        ("hello-f90-pie", fortran),
        ("hello-rs", rust),
        ("hello-rs-exec", rust),
    ];
    for (name, expected) in cases {
        let elf = binaries::guest(&format!("lang/{name}"))?;
        let done = vmm_run(&bench, &["--env", "HELLO=1"], &elf, &["x y"], None)?;
        let right =
            done.status == 0 && String::from_utf8_lossy(&done.stdout) == expected && said(&done).is_empty();
        failures.check(right, || format!("{name}: {}", show(&done)));
    }
    failures.finish()
}

#[test]
fn an_unknown_system_call_is_named_once() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    for variant in VARIANTS {
        let done = vmm_run(&bench, &[], &binaries::guest(&format!("{variant}/unknown_syscall"))?, &[], None)?;
        let expected = "syscall 4242: -1 ENOSYS\nsyscall 4242: -1 ENOSYS\nstill here\n";
        let right = done.status == 0 && String::from_utf8_lossy(&done.stdout) == expected;
        failures.check(right, || format!("{variant}: {}", show(&done)));
        let lines = said(&done);
        let unique: std::collections::BTreeSet<_> = lines.iter().collect();
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        let right = unique.len() == lines.len() && count("system call 4242 ") == 1 && count("(socket)") == 1;
        failures.check(right, || format!("{variant}: warnings {lines:?}"));
    }
    failures.finish()
}

#[test]
fn a_fault_is_told_in_one_line() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    // Program, argument, status, and what the line has to name: fault, address, function.
    let cases: [(&str, &str, i32, &[&str]); 16] = [
        ("null", "", 139, &["null pointer", "write at address 0x0 ", "(store_to_null"]),
        ("wild", "0", 139, &["page fault: write", "address 0x4fffffff000", "(store_wild"]),
        ("wild", "1", 139, &["page fault: write", "address 0x4ff00000000", "(store_wild"]),
        ("wild", "2", 139, &["page fault: write", "address 0x1000", "(store_wild"]),
        ("wild", "3", 139, &["page fault: write", "address 0x6000010000", "(store_wild"]),
        ("wild", "4", 139, &["general protection fault", "(store_wild"]),
        ("wild", "5", 139, &["page fault: write", "address 0x7000000800", "(store_wild"]),
        ("stackoverflow", "", 139, &["stack overflow", "(dive"]),
        ("rodata", "", 139, &["page fault: write", "(store_to_constant"]),
        ("nx", "0", 139, &["page fault: execution"]),
        ("nx", "1", 139, &["page fault: execution"]),
        ("nx", "2", 139, &["page fault: execution"]),
        ("fpe", "", 136, &["division by zero", "(main+"]),
        ("ill", "", 132, &["invalid instruction", "(main+"]),
        ("abort", "", 134, &["abort"]),
        ("hello", "", 0, &[]),
    ];
    for variant in VARIANTS {
        for (name, argument, status, words) in cases {
            let arguments: &[&str] = if argument.is_empty() { &[] } else { &[argument] };
            let done =
                vmm_run(&bench, &[], &binaries::guest(&format!("{variant}/{name}"))?, arguments, None)?;
            let lines = said(&done);
            let stdout = String::from_utf8_lossy(&done.stdout);
            let printed = name == "hello" || (stdout.starts_with("before") && !stdout.contains("survived"));
            let told = if status == 0 {
                lines.is_empty()
            } else {
                lines.len() == 1
                    && lines[0].contains("rank 0")
                    && words.iter().all(|word| lines[0].contains(word))
            };
            let right = done.status == status && printed && told;
            failures.check(right, || {
                format!("{variant}/{name} {argument}: {}; wanted {status}, {words:?}", show(&done))
            });
        }
    }
    failures.finish()
}

/// One line on standard error, nothing else, and status 2.
fn check_refusal(failures: &mut Failures, what: &str, done: &Finished, words: &[&str]) {
    let lines: Vec<_> = done.stderr.lines().collect();
    let right =
        done.status == 2 && done.stdout.is_empty() && lines.len() == 1 && lines[0].starts_with("vmm: ");
    let right = right && words.iter().all(|word| done.stderr.contains(word));
    failures.check(right, || format!("{what}: {}; wanted one line with {words:?} and status 2", show(done)));
}

#[test]
fn what_is_no_program_is_refused() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    let directory = binaries::guest("bad")?;
    let mut names: Vec<_> = std::fs::read_dir(&directory)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    names.sort();
    assert!(names.len() >= 30, "{} has only {} files", directory.display(), names.len());
    for path in names {
        let done = vmm_run(&bench, &[], &path, &[], None)?;
        let name = path.display().to_string();
        check_refusal(&mut failures, &name, &done, &[&name]);
        if name.ends_with("/dynamic") {
            check_refusal(&mut failures, &name, &done, &["-static"]);
            // Said once, not by every rank.
            let done = vmm_run(&bench, &["--np", "3"], &path, &[], None)?;
            check_refusal(&mut failures, "--np 3", &done, &[&name]);
        }
    }
    failures.check(bench.assert_nothing_left().is_ok(), || {
        format!("left: {:?} {:?}", bench.files(), bench.processes())
    });
    failures.finish()
}

#[test]
fn bad_surroundings_are_told_in_one_line() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    let hello = binaries::guest("glibc/hello")?;
    let cpp = binaries::guest("lang/hello-cpp")?;
    let nowhere = bench.path().join("nowhere");
    let missing = nowhere.display().to_string();
    let done = vmm_run(&bench, &["--memory", "1M"], &cpp, &[], None)?;
    check_refusal(&mut failures, "too little memory", &done, &["memory"]);
    check_refusal(&mut failures, "no such program", &vmm_run(&bench, &[], &nowhere, &[], None)?, &[&missing]);
    check_refusal(
        &mut failures,
        "a directory",
        &vmm_run(&bench, &[], bench.path(), &[], None)?,
        &["regular file"],
    );
    let file = format!("{missing}:/data/in.txt");
    check_refusal(
        &mut failures,
        "no such file",
        &vmm_run(&bench, &["--file", &file], &hello, &[], None)?,
        &[&missing],
    );
    let long = bench.path().join("x".repeat(90)).display().to_string();
    check_refusal(
        &mut failures,
        "a long path",
        &vmm_run(&bench, &["--state-dir", &long], &hello, &[], None)?,
        &["85"],
    );
    let processor = vmm_run(&bench, &["--cpus", "1023"], &hello, &[], None)?;
    check_refusal(&mut failures, "no such processor", &processor, &["--cpus"]);
    if !nix::unistd::geteuid().is_root() {
        failures.add(
            "hiding /dev/kvm needs root: run the whole-system tests with tests/machine/with-kvm, as root",
        );
        return failures.finish();
    }
    let vmm = binaries::program("vmm")?;
    // In a mount namespace of its own: a /dev without kvm, and one where only root may open it.
    let hidden = "mount -t tmpfs none /dev && exec \"$@\"";
    let closed = "mount -t tmpfs none /dev && touch /dev/kvm && chmod 600 /dev/kvm && \
                  TMPDIR=/tmp exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    for (script, word) in [(hidden, "no KVM"), (closed, "permission denied")] {
        for np in ["1", "2"] {
            let mut command = bench.command(Path::new("unshare"));
            command.args(["-m", "sh", "-c", script, "sh"]).arg(&vmm).args(["run", "--np", np]).arg(&hello);
            let done = bench.run(command, "hidden", None, 20)?;
            check_refusal(&mut failures, &format!("{word}, --np {np}"), &done, &["/dev/kvm", word]);
        }
    }
    failures.finish()
}

#[test]
fn too_few_descriptors_are_told() -> Result {
    let bench = Bench::new()?;
    let mut command = bench.command(Path::new("sh"));
    // Enough for a partition, and for two or three of its five peers.
    command.args(["-c", "ulimit -n 28 && exec \"$@\"", "sh"]).arg(binaries::program("vmm")?);
    command.args(["run", "--np", "6", "--memory", "16M"]).arg(binaries::app("sort")?);
    let mut launcher = bench.start(command, "short")?;
    wait_for("a line about descriptors", 20, || {
        Ok(launcher.stderr().contains("no more than 28 open files are allowed").then_some(()))
    })
    .map_err(|e| format!("{e}\n{}", launcher.describe()))?;
    launcher.signal(nix::sys::signal::Signal::SIGTERM)?;
    launcher.wait(20)?;
    bench.assert_nothing_left()
}

#[test]
fn the_network_of_others_is_used_only_when_told_so() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    let socket = bench.state().join("r.sock");
    for (listen, fabric) in [("tcp:192.0.2.1:0", "tcp:127.0.0.1:0"), ("tcp:127.0.0.1:0", "tcp:192.0.2.1:0")] {
        let mut command = bench.vmm(["receive", "--listen", listen, "--fabric", fabric, "--api-socket"])?;
        command.arg(&socket);
        let done = bench.run(command, "receive", None, 10)?;
        check_refusal(&mut failures, &format!("{listen} {fabric}"), &done, &["192.0.2.1", "--insecure"]);
    }
    failures.finish()
}

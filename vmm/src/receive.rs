//! `vmm receive`: wait for one partition, then be its process.

use std::sync::Arc;

use migrator::destination::{self, Options};
use migrator::report::one_line;
use migrator::transport::{Listener, Security};
use vmm::fabric::address::Address;
use vmm::vcpu::Ending;

use crate::api;
use crate::arriving::{self, Destination, Endpoint};
use crate::cli::{Failure, Outcome, ReceiveArgs, bind_beside, bind_fabric, bind_to};
use crate::host::{Host, RemoveOnDrop, State, stop_on_signals};

pub fn receive(arguments: &ReceiveArgs) -> Outcome {
    if let Some(cpus) = &arguments.cpus {
        bind_to(cpus)?;
    }
    // Fail now rather than when a partition arrives.
    vmm::kvm::check().map_err(|e| Failure::usage(one_line(&e)))?;
    let beside = arguments.api_socket.with_extension("fabric");
    let fabric = arguments.fabric.clone().unwrap_or_else(|| Address::Unix(beside.clone()));
    let (socket, credentials) = bind_fabric(&fabric, &arguments.tls, arguments.insecure)?;
    let fabric = socket.address().map_err(|e| Failure::failed(format!("--fabric {fabric}: {e}")))?;
    let beside = bind_beside(arguments.rings.neighbours.as_ref(), &fabric, &beside)?;
    let identity = arguments.tls.identity().map_err(|e| Failure::usage(one_line(&e)))?;
    let security = Security { insecure: arguments.insecure, identity };
    let listener = Listener::bind(&arguments.listen, &security).map_err(|e| Failure::usage(one_line(&e)))?;
    let (host, ended) = Host::new(Some(fabric.to_string()), arguments.tls.clone());
    stop_on_signals(&host)?;
    host.set_listen(listener.address().to_string());
    let mut sockets = RemoveOnDrop(vec![arguments.api_socket.clone()]);
    if let Address::Unix(path) = &fabric {
        sockets.0.push(path.clone());
    }
    let server = api::serve(host.clone(), &arguments.api_socket)?;
    let (incoming, shares) = (host.clone(), arguments.rings.shares());
    std::thread::Builder::new()
        .name("receive".into())
        .spawn(move || {
            take_in(&incoming, &listener, Endpoint { address: fabric, socket, beside, shares, credentials })
        })
        .map_err(|e| Failure::failed(format!("cannot start a thread: {e}")))?;
    let status = host.finish(&ended, arguments.report.as_ref().map(|path| (path, 0)))?;
    drop(server);
    drop(sockets);
    // A migration that failed before anything arrived leaves `Stopped` behind, with the reason already said.
    Ok(if matches!(host.state(), State::Exited | State::Moved) { status } else { 1 })
}

fn take_in(host: &Arc<Host>, listener: &Listener, fabric: Endpoint) {
    let options = Options { annotation: fabric.address.to_string().into_bytes(), ..Options::default() };
    let mut machine = Destination::new(host.clone(), fabric);
    let control = destination::Control::new().with_hook(arriving::hook());
    match destination::receive(listener, &mut machine, &options, &control) {
        destination::Outcome::Running { description, told } => {
            vmm::console::say(format_args!(
                "vmm: rank {} runs here (epoch {})",
                description.rank, description.epoch
            ));
            if let Err(error) = told {
                vmm::console::say(format_args!(
                    "vmm: rank {}: the source was not told: {}",
                    description.rank,
                    one_line(&error)
                ));
            }
        }
        destination::Outcome::Refused { error } | destination::Outcome::Failed { error } => {
            vmm::console::say(format_args!("vmm: nothing was taken in: {}", one_line(&error)));
            host.end(Ending::Fault(vmm::fault::Fault {
                status: 1,
                message: "vmm: the migration failed".into(),
            }));
        }
        destination::Outcome::InDoubt { description, error } => {
            let text = format!(
                "everything has arrived, but the source gave no verdict: {}; find out whether it goes on there, then stop this copy, or resume it with --in-doubt if it does not",
                one_line(&error)
            );
            vmm::console::say(format_args!("vmm: rank {}: in doubt: {text}", description.rank));
            host.set_state(State::InDoubt, Some(text));
        }
    }
}

//! `linkgate demo`: a gateway to try, with partners, tenants, links of every role and state, and services behind it.
//!
//! Order: a folder, keys, sample upstreams on free ports, a configuration file (`settings`), a database filled through
//! the same operations as the command line uses (`seed`), requests with the answer to expect (`requests`); then the
//! server runs in this process by that file, exactly as `serve` would. What is shown is printed once it listens.

mod consolidated;
mod document;
mod request;
mod requests;
mod seed;
mod settings;
mod tokens;
mod world;

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use super::{
    context::Context,
    outcome::{Exit, Failure},
    serve::app_failure,
};
use crate::{
    app::{self, ConfigSource},
    audit::medium::volatile_file_system,
    config::{self, Config},
    identity::mint::{DevAlgorithm, DevKey},
    policy::Bundle,
    sample::{self, Kind},
};

use document::Document;

/// Start a gateway with partners, tenants and services to try
///
/// Everything lives in a temporary folder, on loopback addresses, and is gone when it stops (Ctrl-C). Prints curl lines
/// with the answer to expect; with --json one JSON document on one line, for programs that drive the gateway.
#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// Port of the gateway on 127.0.0.1; 0: a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Port of the health listener on 127.0.0.1; 0: a free one
    #[arg(long, default_value_t = 0)]
    health_port: u16,
    /// Keep everything in this new or empty folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Ask a second policy set beside the one in force (shadow mode): `policies-next` in the folder, at first a copy
    #[arg(long)]
    shadow: bool,
}

/// Everything that the server and the one who tries it need.
struct Plan {
    config: Config,
    config_path: PathBuf,
    document: Document,
    /// Why audit records are not brought to stable storage; `None` where they are.
    volatile: Option<&'static str>,
    /// Services that stop with the plan.
    _upstreams: Upstreams,
    /// The folder that goes with the plan; `None` where the user named one.
    _temporary: Option<tempfile::TempDir>,
}

pub fn run(args: &DemoArgs, context: &Context) -> Result<(), Failure> {
    let plan = prepare(args)?;
    let json = context.console.json;
    let path = plan.config_path.clone();
    let source = ConfigSource::new(Some(&plan.config_path), move || config::load(Some(&path), []));
    app::run(plan.config.clone(), source, |_| {
        let text = if json {
            plan.document.line()
        } else {
            plan.document.text(plan.volatile, plan.config.policy.shadow.as_deref())
        };
        let mut out = std::io::stdout().lock();
        // Who started us may be gone already; the gateway serves all the same.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    })
    .map_err(|error| app_failure(&error))
}

fn prepare(args: &DemoArgs) -> Result<Plan, Failure> {
    let (dir, temporary) = folder(args.dir.as_deref())?;
    let volatile = volatile_file_system(&dir)?;
    let upstreams = Upstreams::start()?;
    let keys = settings::Keys {
        issuer: DevKey::generate(DevAlgorithm::Es256).map_err(Failure::failed)?,
        signing: DevKey::generate(DevAlgorithm::EdDsa).map_err(Failure::failed)?,
    };
    // Held until all are known, so that none is given twice.
    let reserved = [reserve(args.port)?, reserve(args.health_port)?];
    let [public, health] = reserved.each_ref().map(TcpListener::local_addr);
    let addresses = settings::Addresses {
        public: public?,
        health: health?,
        isp: upstreams.isp.origin(),
        isp_own: upstreams.isp_own.origin(),
        platform: upstreams.platform.origin(),
        newer: upstreams.newer.origin(),
    };
    let config_path = settings::write(&dir, &keys, &addresses, volatile.is_none(), args.shadow)?;
    // No environment: what the folder holds is the whole of it, so that `serve --config` does the same.
    let config = config::load(Some(&config_path), []).map_err(|errors| Failure::new(Exit::Failed, errors))?;
    let bundle = Bundle::load(config.policy.dir.as_deref()).map_err(|errors| Failure::new(Exit::Failed, errors))?;

    let world = world::World::new();
    for registry in [&upstreams.platform, &upstreams.newer] {
        registry.name_tenants(world.tenants.iter().map(|tenant| (tenant.id.clone(), tenant.name.clone())));
    }
    let links = upstreams.runtime.block_on(seed::fill(&config, bundle.roles(), &world))?;
    let ticket = upstreams.ticket_of(&world::city_tenant(world::place::FULL))?;
    let document = document::build(&world, &links, &keys.issuer, &addresses, &dir, &config_path, &ticket)?;
    drop(reserved);
    Ok(Plan { config, config_path, document, volatile, _upstreams: upstreams, _temporary: temporary })
}

fn folder(named: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let Some(named) = named else {
        let temporary = tempfile::Builder::new().prefix("linkgate-demo-").tempdir()?;
        return Ok((temporary.path().to_path_buf(), Some(temporary)));
    };
    let unusable = |error| Failure::failed(format!("cannot use the folder `{}`: {error}", named.display()));
    std::fs::create_dir_all(named).map_err(unusable)?;
    if std::fs::read_dir(named).map_err(unusable)?.next().is_some() {
        let message = format!("`{}` is not empty: name a new folder", named.display());
        return Err(Failure::new(Exit::Conflict, message));
    }
    // The configuration holds paths; they must hold from anywhere.
    Ok((named.canonicalize().map_err(unusable)?, None))
}

fn reserve(port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).map_err(|error| {
        Failure::failed(format!("cannot listen on `{address}`: {error}; choose another port, or 0 for a free one"))
    })
}

/// The sample services, on a runtime of their own.
struct Upstreams {
    isp: sample::Handle,
    /// The ISP service of one tenant that has its own.
    isp_own: sample::Handle,
    platform: sample::Handle,
    /// The newer generation of both.
    newer: sample::Handle,
    runtime: tokio::runtime::Runtime,
}

impl Upstreams {
    /// A ticket that the tenant's service holds, to try a change on.
    fn ticket_of(&self, tenant: &str) -> Result<String, Failure> {
        let tickets = self.isp.truth(tenant).tickets;
        let id = tickets.first().and_then(|ticket| ticket.get("id")?.as_str().map(str::to_owned));
        id.ok_or_else(|| Failure::failed(format!("the sample service has no ticket of `{tenant}`")))
    }

    fn start() -> Result<Self, Failure> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("sample").enable_all().build()?;
        let start = |kind| {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                sample::start(kind, listener)
            })
        };
        let (isp, isp_own, platform) = (start(Kind::Isp)?, start(Kind::Isp)?, start(Kind::Platform)?);
        Ok(Self { isp, isp_own, platform, newer: start(Kind::Gen2)?, runtime })
    }
}

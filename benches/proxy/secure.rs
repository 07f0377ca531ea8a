//! `--tls`: what TLS adds. The gateway behind TLS and the gateway in cleartext get the same requests in turn, first on
//! connections that stay open, then each request on a connection of its own: a full handshake, with a P-256 certificate.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};

use super::{
    Spread, World,
    load::{Load, drive, drive_over},
    process::Role,
};

/// A pair of files beside the configuration; gives whoever trusts it.
fn certificate(folder: &Path) -> Arc<ClientConfig> {
    let pair = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.pem"), pair.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // Each handshake a full one.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

pub(crate) fn compare(world: &World) {
    let clear = world.prepare("in cleartext", 100, 1, false);
    let path = world.prepare("behind TLS", 100, 1, false);
    let tls = certificate(path.parent().unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    let section = "[listen.tls]\ncertificates = [{ cert = \"tls.pem\", key_file = \"tls.key\" }]\n[database]";
    std::fs::write(&path, text.replacen("[database]", section, 1)).unwrap();
    let clear = Role::start("gateway", clear.to_str().unwrap());
    let secure = Role::start("gateway", path.to_str().unwrap());
    let heads = world.requests(100, 100);
    println!("{:<40}{:>12}{:>21}{:>21}{:>21}", "", "TLS req/s", "TLS CPU-s/100k", "cleartext", "ratio");
    for (name, reconnect) in [("on open connections", false), ("each on a new connection", true)] {
        let load = Load { reconnect, ..Load::lasting(world.round) };
        drive(clear.address, &heads, Load::of(2_000));
        drive_over(Some(&tls), secure.address, &heads, Load::of(2_000));
        let (mut secures, mut clears, mut ratios, mut rates) = (vec![], vec![], vec![], vec![]);
        for round in 0..world.rounds {
            let cost = |with: bool| {
                let (role, tls) = if with { (&secure, Some(&tls)) } else { (&clear, None) };
                let before = role.threads();
                let driven = drive_over(tls, role.address, &heads, load);
                let spent = role.threads().total_since(&before).as_secs_f64();
                (spent / driven.requests as f64 * 100_000.0, driven.per_second())
            };
            // In turn, so that a machine whose speed changes favours neither.
            let (mine, other) = if round % 2 == 0 {
                let mine = cost(true);
                (mine, cost(false))
            } else {
                let other = cost(false);
                (cost(true), other)
            };
            secures.push(mine.0);
            clears.push(other.0);
            ratios.push(mine.0 / other.0);
            rates.push(mine.1);
        }
        println!(
            "{name:<40}{:>12.0}{:>21}{:>21}{:>21}",
            Spread::of(rates).middle,
            Spread::of(secures),
            Spread::of(clears),
            Spread::of(ratios)
        );
    }
}

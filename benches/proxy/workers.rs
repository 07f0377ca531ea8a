//! Ways to feed the workers: SO_REUSEPORT (the kernel spreads by hash), one acceptor that gives each connection to a
//! worker with the fewest (of several one by chance, or always the first), and one shared runtime. All are the bare
//! passthrough, so that only this differs.

use std::time::Duration;

use super::{
    Spread, World,
    load::{Load, drive, heads},
    process::Role,
};

/// Fresh starts of each: who gets which connection is decided anew by each.
const STARTS: usize = 10;

pub(crate) fn compare(world: &World) {
    let lasting = Load::lasting(world.round);
    let loads = [
        ("64 connections, all busy", lasting),
        ("8 connections, all busy", Load { connections: 8, ..lasting }),
        ("64 connections, every second busy", Load { busy_one_in: 2, ..lasting }),
        ("64 connections, every eighth busy", Load { busy_one_in: 8, ..lasting }),
        ("a connection a request, 64 at once", Load { reconnect: true, ..lasting }),
    ];
    println!("{:<38}{:<16}{:>20}{:>20}{:>20}{:>24}", "", "", "CPU-s/100k", "p50 ms", "p99 ms", "busiest thread %");
    let heads = heads(&["x".repeat(500)], &["t".to_owned()], 1);
    let ways = ["reuseport", "acceptor", "acceptor-fixed", "shared"];
    for (name, load) in loads {
        let mut seen: [Vec<Seen>; 4] = Default::default();
        for _ in 0..STARTS.min(world.rounds) {
            for (way, seen) in ways.iter().zip(&mut seen) {
                seen.push(measure(&world.peer(way), &heads, load));
            }
        }
        for (way, seen) in ways.iter().zip(&seen) {
            let of = |what: fn(&Seen) -> f64| Spread::of(seen.iter().map(what).collect());
            println!(
                "{name:<38}{way:<16}{:>20}{:>20}{:>20}{:>24}",
                of(|seen| seen.cpu),
                of(|seen| seen.middle),
                of(|seen| seen.late),
                of(|seen| seen.busiest)
            );
        }
    }
}

struct Seen {
    cpu: f64,
    middle: f64,
    late: f64,
    /// Its share of the workers' time: half where two share the work evenly.
    busiest: f64,
}

fn measure(role: &Role, heads: &[Vec<u8>], load: Load) -> Seen {
    drive(role.address, heads, Load { time: Duration::from_millis(200), ..load });
    let before = role.threads();
    let driven = drive(role.address, heads, load);
    let after = role.threads();
    let total = after.total_since(&before).as_secs_f64();
    let workers = || after.since(&before).filter(|(name, _)| name.starts_with("worker") || name.starts_with("shared"));
    let busiest = workers().map(|(_, time)| time.as_secs_f64()).fold(0.0, f64::max);
    let all: f64 = workers().map(|(_, time)| time.as_secs_f64()).sum();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    Seen {
        cpu: total / driven.requests as f64 * 100_000.0,
        middle: ms(driven.latency(500)),
        late: ms(driven.latency(990)),
        busiest: busiest / all * 100.0,
    }
}

//! Which endpoint a request goes to: of two that are drawn by lot the one with fewer requests under way (least requests,
//! power of two choices).
//!
//! Drawn among those that are available. Panic rule: where none is, or fewer than the panic threshold, it is drawn among
//! all of them: to send requests to endpoints that seem bad is better than to refuse every one, or to crush the last good
//! one.

use std::sync::Arc;

use super::endpoint::Endpoint;

/// Whom the lot is drawn among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    Available,
    /// The panic rule.
    All,
}

/// Chooses. `tried`: endpoints that this request was sent to before; they are never chosen again. `draw`: a number below
/// its argument. `None`: none is left.
pub(super) fn choose<'e>(
    all: &'e [Arc<Endpoint>],
    panic_threshold: u32,
    tried: &[u64],
    now: u64,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<(&'e Arc<Endpoint>, Among)> {
    let available = all.iter().filter(|endpoint| endpoint.is_available(now)).count();
    let among = match available {
        0 => Among::All,
        some if some * 100 < usize::try_from(panic_threshold).unwrap_or(100) * all.len() => Among::All,
        _ => Among::Available,
    };
    let fits = |endpoint: &&Arc<Endpoint>| {
        (among == Among::All || endpoint.is_available(now)) && !tried.contains(&endpoint.id())
    };
    let candidates = || all.iter().filter(fits);
    let chosen = match candidates().count() {
        0 | 1 => candidates().next()?,
        many => {
            let first = draw(many);
            let second = draw(many - 1);
            // Of the others.
            let second = if second < first { second } else { second + 1 };
            // Another worker may have changed a state meanwhile, and there may be fewer by now.
            let (first, second) = (candidates().nth(first), candidates().nth(second));
            match (first, second) {
                (Some(first), Some(second)) if second.active() < first.active() => second,
                (Some(one), _) | (None, Some(one)) => one,
                (None, None) => candidates().next()?,
            }
        }
    };
    Some((chosen, among))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::upstream::{
        endpoint::Picked,
        settings::{Origin, OutlierSettings},
    };

    fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
        let origin = Origin { https: false, authority: "isp:1".into() };
        (0..count).map(|_| Endpoint::new(&origin, SocketAddr::from(([127, 0, 0, 1], 1)))).collect()
    }

    #[test]
    fn the_less_busy_of_two_is_chosen() {
        let all = endpoints(3);
        let _busy: Vec<Picked> = (0..3).map(|_| Picked::weighed(&all[0])).collect();
        let _less = Picked::weighed(&all[1]);
        let choose = |lots: [usize; 2]| {
            let mut lots = lots.into_iter();
            let chosen = choose(&all, 0, &[], 1, |_| lots.next().unwrap()).unwrap();
            all.iter().position(|one| Arc::ptr_eq(one, chosen.0)).unwrap()
        };
        assert_eq!([choose([0, 0]), choose([1, 0]), choose([0, 1]), choose([1, 1])], [1, 1, 2, 2]);
    }

    /// An endpoint that holds its requests (a blackhole, say) gets ever fewer of them.
    #[test]
    fn who_answers_slowly_gets_fewer_requests() {
        let all = endpoints(2);
        let mut held = Vec::new();
        for _ in 0..100 {
            let picked = Picked::weighed(choose(&all, 0, &[], 1, |below| fastrand::usize(..below)).unwrap().0);
            if std::ptr::eq(picked.endpoint(), &*all[0]) {
                held.push(picked);
            }
        }
        assert!(held.len() <= 2, "{}", held.len());
    }

    proptest! {
        #[test]
        fn never_an_endpoint_that_is_out_unless_in_panic_and_never_one_twice(
            states in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..12),
            threshold in 0_u32..=100,
            lots in prop::collection::vec(any::<usize>(), 2),
        ) {
            let all = endpoints(states.len());
            let settings = OutlierSettings { base_ejection_time: Duration::from_secs(1), ..OutlierSettings::default() };
            let mut tried = Vec::new();
            for (endpoint, (ejected, unhealthy, before)) in all.iter().zip(&states) {
                if *ejected {
                    endpoint.outlier.eject(&settings, 1);
                }
                if *unhealthy {
                    endpoint.checked.watch();
                    endpoint.checked.found(false, 1, 1);
                }
                if *before {
                    tried.push(endpoint.id());
                }
            }
            let good = states.iter().filter(|(ejected, unhealthy, _)| !ejected && !unhealthy).count();
            let panic = good == 0 || good * 100 < threshold as usize * states.len();
            let mut lots = lots.into_iter();
            let chosen = choose(&all, threshold, &tried, 500, |below| lots.next().unwrap() % below);
            let left: BTreeSet<u64> = all.iter().map(|one| one.id()).filter(|id| !tried.contains(id)).collect();
            match chosen {
                Some((endpoint, among)) => {
                    prop_assert_eq!(among == Among::All, panic);
                    prop_assert!(panic || endpoint.is_available(500));
                    prop_assert!(left.contains(&endpoint.id()));
                }
                None => {
                    let fits = |one: &Arc<Endpoint>| left.contains(&one.id()) && (panic || one.is_available(500));
                    prop_assert!(!all.iter().any(fits));
                }
            }
            // Everything comes back.
            prop_assert!(all.iter().all(|one| !one.outlier.is_ejected(1_001)));
        }
    }
}

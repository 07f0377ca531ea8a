//! No stale entry wins a race, and every change is seen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use linkgate::{
    domain::{Gate, Millis, PartnerId},
    store::{
        Admin, Directory, LoadHook, Reading,
        admin::{PartnerInput, UserInput},
    },
};
use tokio::sync::{Notify, Semaphore};

use crate::fixture::{Fixture, Kind, eventually, link_settings, roles};

fn gate(portfolio: &linkgate::domain::Portfolio, tenant: &str) -> Option<Gate> {
    portfolio.link(tenant).expect("a link").closed_gate(Millis::now())
}

pub(crate) async fn a_portfolio_holds_all_links_of_one_partner(f: Arc<Fixture>) {
    let (partner, other) = (f.partner("p").await, f.partner("q").await);
    for n in 0..3 {
        let tenant = f.tenant(&format!("t{n}")).await;
        f.granted(partner, &tenant, "auditor").await;
    }
    let revoked = f.granted(other, &f.tenant("x").await, "auditor").await;
    f.revoke(revoked.id).await;
    let directory = f.fresh_directory().await;
    assert!(directory.portfolio_cached(partner).is_none());
    let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(portfolio.links.len(), 3);
    assert_eq!(portfolio.partner.home_tenant_id.as_str(), "home-p");
    assert_eq!(portfolio.as_of as i64, f.count("SELECT seq FROM change_counter").await);
    assert_eq!(&*portfolio.link("t1").unwrap().tenant_status, "active");
    assert!(Arc::ptr_eq(&portfolio, &directory.portfolio_cached(partner).unwrap()), "the same entry");
    let of_other = directory.portfolio(other, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(gate(&of_other, "x"), Some(Gate::Active), "links that are not live are there too");

    let off = PartnerInput { is_active: Some(false), ..PartnerInput::default() };
    let written = f.admin.update_partner(&f.actor, partner, None, &off).await.unwrap();
    directory.notice(&written.change).await;
    let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    assert!(!portfolio.partner.active);
    assert_eq!(gate(&portfolio, "t1"), Some(Gate::Partner));
}

pub(crate) async fn unknown_partners_and_members_are_remembered_until_they_are_known(f: Arc<Fixture>) {
    let loads = Arc::new(AtomicUsize::new(0));
    let directory = Directory::start_with(&f.db, &link_settings(), Some(counting(&loads)));
    eventually("fresh", || directory.is_fresh()).await;
    let id: PartnerId = "00000000-0000-4000-8000-00000000000a".parse().unwrap();
    for _ in 0..3 {
        assert!(directory.portfolio(id, Reading::Fresh).await.unwrap().is_none());
        assert!(directory.member("i", "u", Reading::Fresh).await.unwrap().is_none());
    }
    assert_eq!(loads.load(Ordering::SeqCst), 2, "each was asked for once");
    assert!(matches!(directory.member_cached("i", "u"), Some(None)));
    // Not the same as another issuer's, nor as another way to cut the two words.
    assert!(directory.member_cached("iu", "").is_none());

    let home = f.tenant("home").await;
    let input = PartnerInput {
        partner_id: Some(id.to_string()),
        name: Some("p".into()),
        home_tenant_id: Some(home.to_string()),
        is_active: None,
    };
    f.admin.create_partner(&f.actor, &input).await.unwrap();
    let user = f.user("i", "u", id).await;
    let began = Instant::now();
    while directory.portfolio(id, Reading::Fresh).await.unwrap().is_none()
        || directory.member("i", "u", Reading::Fresh).await.unwrap().is_none()
    {
        assert!(began.elapsed() < Duration::from_secs(1), "a new partner is known within a second");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let member = directory.member("i", "u", Reading::Fresh).await.unwrap().unwrap();
    assert_eq!((member.partner_id, member.active), (id, true));
    let off = UserInput { is_active: Some(false), ..UserInput::default() };
    let written = f.admin.update_user(&f.actor, user.id, None, &off).await.unwrap();
    directory.notice(&written.change).await;
    assert!(!directory.member("i", "u", Reading::Fresh).await.unwrap().unwrap().active);
}

pub(crate) async fn a_change_by_another_process_is_seen_within_a_second(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let link = f.granted(partner, &tenant, "auditor").await;
    let directory = f.fresh_directory().await;
    let elsewhere = Admin::new(&f.another().await, roles(), false);
    for round in 0..10 {
        let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
        assert_eq!(gate(&portfolio, "t"), None);
        let epoch = directory.epoch();
        elsewhere.revoke_link(&f.actor, link.id, None).await.unwrap();
        let acknowledged = Instant::now();
        loop {
            let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
            if gate(&portfolio, "t") == Some(Gate::Active) {
                break;
            }
            assert!(acknowledged.elapsed() < Duration::from_secs(1), "round {round}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(directory.epoch() > epoch);
        let seen = directory.epoch();
        f.granted(partner, &tenant, "auditor").await;
        eventually("the grant is seen", || directory.epoch() > seen).await;
    }
}

pub(crate) async fn a_noticed_change_is_in_force_at_once(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let directory = f.fresh_directory().await;
    for _ in 0..20 {
        let granted = f.grant(&crate::fixture::link(partner, &tenant, "auditor")).await.unwrap();
        directory.notice(&granted.change).await;
        assert_eq!(gate(&directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap(), "t"), None);
        let revoked = f.revoke(granted.value.id).await;
        directory.notice(&revoked.change).await;
        assert!(directory.portfolio_cached(partner).is_none());
        let after = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
        assert_eq!(gate(&after, "t"), Some(Gate::Active));
    }
}

fn counting(loads: &Arc<AtomicUsize>) -> LoadHook {
    let loads = Arc::clone(loads);
    Arc::new(move || {
        loads.fetch_add(1, Ordering::SeqCst);
        async {}.boxed()
    })
}

/// Stops the first load between reading and publishing.
#[derive(Clone)]
struct Stop {
    reached: Arc<Notify>,
    go: Arc<Semaphore>,
    loads: Arc<Mutex<usize>>,
}

impl Stop {
    fn new() -> Self {
        Self { reached: Arc::new(Notify::new()), go: Arc::new(Semaphore::new(0)), loads: Arc::default() }
    }

    fn hook(&self) -> LoadHook {
        let stop = self.clone();
        Arc::new(move || {
            let stop = stop.clone();
            async move {
                let first = {
                    let mut loads = stop.loads.lock().unwrap();
                    *loads += 1;
                    *loads == 1
                };
                if first {
                    stop.reached.notify_one();
                    stop.go.acquire().await.unwrap().forget();
                }
            }
            .boxed()
        })
    }
}

/// read (old) | change, seen | publish: the load is thrown away and read again.
pub(crate) async fn a_load_overtaken_by_a_change_is_never_answered(f: Arc<Fixture>) {
    for noticed in [true, false] {
        let name = format!("p{noticed}");
        let (partner, tenant) = (f.partner(&name).await, f.tenant(&format!("t{noticed}")).await);
        let link = f.granted(partner, &tenant, "auditor").await;
        let stop = Stop::new();
        let directory = Directory::start_with(&f.db, &link_settings(), Some(stop.hook()));
        eventually("fresh", || directory.is_fresh()).await;
        let asking = tokio::spawn({
            let directory = Arc::clone(&directory);
            async move { directory.portfolio(partner, Reading::Fresh).await }
        });
        stop.reached.notified().await;
        let epoch = directory.epoch();
        // By this process, which says so, or by another one, which the feed has to find.
        let revoked = f.revoke(link.id).await;
        if noticed {
            directory.notice(&revoked.change).await;
        }
        eventually("the change is seen", || directory.epoch() > epoch).await;
        stop.go.add_permits(1);
        let answer = asking.await.unwrap().unwrap().unwrap();
        assert_eq!(gate(&answer, tenant.as_str()), Some(Gate::Active), "noticed: {noticed}");
        assert!(answer.as_of >= revoked.change.seq);
        assert_eq!(*stop.loads.lock().unwrap(), 2, "read twice");
        let cached = directory.portfolio_cached(partner).unwrap();
        assert!(Arc::ptr_eq(&cached, &answer), "the old one was never put in its place");
    }
}

/// read (old) | change | publish | change seen: what was published dies with the notice.
pub(crate) async fn a_load_published_before_its_change_is_seen_dies_with_it(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    let link = f.granted(partner, &tenant, "auditor").await;
    let stop = Stop::new();
    let directory = Directory::start_with(&f.db, &link_settings(), Some(stop.hook()));
    eventually("fresh", || directory.is_fresh()).await;
    let asking = tokio::spawn({
        let directory = Arc::clone(&directory);
        async move { directory.portfolio(partner, Reading::Fresh).await }
    });
    stop.reached.notified().await;
    let epoch = directory.epoch();
    let revoked = f.revoke(link.id).await;
    stop.go.add_permits(1);
    let answer = asking.await.unwrap().unwrap().unwrap();
    // Whether the feed was quicker or not: once the change is known, the old entry is gone.
    directory.notice(&revoked.change).await;
    assert!(directory.epoch() > epoch);
    assert!(directory.portfolio_cached(partner).is_none_or(|cached| gate(&cached, "t") == Some(Gate::Active)));
    let after = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(gate(&after, "t"), Some(Gate::Active));
    assert!(answer.as_of <= after.as_of);
}

pub(crate) async fn loads_of_one_partner_are_one_load(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.granted(partner, &tenant, "auditor").await;
    let stop = Stop::new();
    let directory = Directory::start_with(&f.db, &link_settings(), Some(stop.hook()));
    eventually("fresh", || directory.is_fresh()).await;
    let ask = || {
        let directory = Arc::clone(&directory);
        tokio::spawn(async move { directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap() })
    };
    let mut asking = vec![ask()];
    stop.reached.notified().await;
    asking.extend((0..50).map(|_| ask()));
    // They come from other threads and other runtimes too: a worker has a runtime of its own.
    let directory_too = Arc::clone(&directory);
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(directory_too.portfolio(partner, Reading::Fresh)).unwrap().unwrap()
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.go.add_permits(1);
    let first = asking.remove(0).await.unwrap();
    for one in asking {
        assert!(Arc::ptr_eq(&first, &one.await.unwrap()));
    }
    assert!(Arc::ptr_eq(&first, &worker.join().unwrap()));
    assert_eq!(*stop.loads.lock().unwrap(), 1);
}

/// A writer whose log rows are gone before the feed read them: the numbers do not join up.
pub(crate) async fn a_pruned_change_log_reloads_everything(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.granted(partner, &tenant, "auditor").await;
    let directory = f.fresh_directory().await;
    directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    let epoch = directory.epoch();
    f.raw(
        "BEGIN; UPDATE change_counter SET seq = seq + 3; \
         UPDATE partner_tenant_links SET is_active = FALSE, version = version + 1; \
         DELETE FROM change_log; \
         INSERT INTO change_log (seq, kind, at) SELECT seq, 'none', 0 FROM change_counter; COMMIT;",
    )
    .await
    .unwrap();
    eventually("the gap is seen", || directory.epoch() > epoch).await;
    let after = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(gate(&after, "t"), Some(Gate::Active));
    assert!(directory.is_fresh());
}

/// Another database behind the same address, such as a restored backup: its numbers say nothing about the old ones.
pub(crate) async fn a_counter_that_went_back_reloads_everything(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.granted(partner, &tenant, "auditor").await;
    let directory = f.fresh_directory().await;
    directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    let epoch = directory.epoch();
    f.raw(
        "BEGIN; UPDATE change_counter SET seq = 1; DELETE FROM change_log; \
         UPDATE partner_tenant_links SET is_active = FALSE, version = version + 1; COMMIT;",
    )
    .await
    .unwrap();
    eventually("the restart is seen", || directory.epoch() > epoch).await;
    eventually("fresh again", || directory.is_fresh()).await;
    let after = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(gate(&after, "t"), Some(Gate::Active));

    if f.kind == Kind::Sqlite {
        // The whole file replaced, as a restore by `mv` does it.
        let path = f.dir.path().join("linkgate.db");
        let copy = f.dir.path().join("copy.db");
        f.raw(format!("VACUUM INTO '{}'", copy.display())).await.unwrap();
        let epoch = directory.epoch();
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(f.dir.path().join(format!("linkgate.db{suffix}"))).ok();
        }
        std::fs::rename(&copy, &path).unwrap();
        f.raw(
            "UPDATE partner_tenant_links SET is_active = TRUE, version = version + 1; \
             UPDATE change_counter SET seq = seq + 1; \
             INSERT INTO change_log (seq, kind, at) SELECT seq, 'all', 0 FROM change_counter;",
        )
        .await
        .unwrap();
        eventually("the new file is seen", || directory.epoch() > epoch).await;
        eventually("fresh again", || directory.is_fresh()).await;
        let after = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
        assert_eq!(gate(&after, "t"), None, "read from the new file");
    }
}

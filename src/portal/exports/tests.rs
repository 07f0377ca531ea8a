//! Jobs from queue to file over scripted services: failures, ended links, dead, stopped and slow workers, clean-up.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};

use super::{columns::tests::invoice, request::Rights, *};
use crate::{
    config::settings::{DatabaseSettings, LinkSettings},
    connector::rows::InvoiceRow,
    domain::{LinkId, Millis, PartnerId, TenantId, link_rules::LinkInput},
    policy::settings::PolicySettings,
    portal::sources::{Each, InvoiceFilter, Scanned, Site, SourceError},
    store::{
        Actor, Admin, JobState, Reading,
        admin::{PartnerInput, TenantInput},
    },
};

/// Services that hold so many invoices, and fail or hang as the test says.
#[derive(Debug, Default)]
struct Scripted {
    rows: HashMap<String, usize>,
    /// Fails so often, each time after half of the rows.
    fails: AtomicUsize,
    /// Hangs after half of the rows while set.
    hangs: AtomicUsize,
    truncated: bool,
    asked: Mutex<Vec<String>>,
}

impl InvoiceSource for Arc<Scripted> {
    async fn invoices(
        &self,
        site: &Site,
        _: &InvoiceFilter,
        _: Instant,
        each: Each<'_, InvoiceRow>,
    ) -> Result<Scanned, SourceError> {
        let tenant = site.tenant().as_str().to_owned();
        let rows = self.rows.get(&tenant).copied().unwrap_or_default();
        self.asked.lock().unwrap().push(tenant.clone());
        for n in 0..rows {
            if n == rows / 2 {
                if self.fails.load(Ordering::SeqCst) > 0 {
                    self.fails.fetch_sub(1, Ordering::SeqCst);
                    return Err(SourceError::Timeout);
                }
                while self.hangs.load(Ordering::SeqCst) > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            each(invoice(&format!("{tenant}-{n}")));
        }
        // Not asked for: another month.
        each(InvoiceRow { invoice_date: "2025-01-01T00:00:00Z".parse().unwrap(), ..invoice("old") });
        Ok(Scanned { truncated: self.truncated })
    }
}

/// A database with one partner and its links, and the folder of its exports.
struct Stage {
    dir: tempfile::TempDir,
    database: Database,
    directory: Arc<Directory>,
    policies: Arc<Policies>,
    admin: Admin,
    partner: PartnerId,
    links: HashMap<String, LinkId>,
    exports: Exports,
}

impl Stage {
    async fn new(tenants: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = DatabaseSettings::Sqlite { path: dir.path().join("linkgate.db") };
        let database = Database::open(&settings).await.unwrap();
        database.migrate().await.unwrap();
        let policies =
            Arc::new(Policies::new(PolicySettings { memo_entries: 16, ..PolicySettings::default() }).unwrap());
        let admin = Admin::new(&database, Arc::new(policies.current().roles().clone()), false);
        let actor = Actor::new("test");
        for tenant in tenants.iter().chain(&["home"]) {
            let input = TenantInput {
                tenant_id: Some((*tenant).into()),
                name: Some(format!("={tenant}")),
                ..TenantInput::default()
            };
            admin.create_tenant(&actor, &input).await.unwrap();
        }
        let input = PartnerInput {
            name: Some("Partner".into()),
            home_tenant_id: Some("home".into()),
            is_active: Some(true),
            ..PartnerInput::default()
        };
        let partner = admin.create_partner(&actor, &input).await.unwrap().value.partner_id;
        let mut links = HashMap::new();
        for tenant in tenants {
            let input = LinkInput {
                partner_id: Some(partner.to_string()),
                managed_tenant_id: Some((*tenant).into()),
                access_role: Some("msp_full".into()),
                ..LinkInput::default()
            };
            links.insert((*tenant).to_owned(), admin.create_link(&actor, &input).await.unwrap().value.id);
        }
        let directory = Directory::start(
            &database,
            &LinkSettings {
                max_staleness: Duration::from_secs(5),
                heartbeat: Duration::from_millis(100),
                cached_partners: 10,
                approvals: false.into(),
            },
        );
        while !directory.is_fresh() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
        let settings = ExportSettings {
            dir: dir.path().join("exports"),
            secret: None,
            concurrency: 1,
            queue_per_partner: 5,
            lease: Duration::from_millis(600),
            max_duration: Duration::from_secs(3600),
            pdf_rows: 100,
        };
        let exports = Exports::new(&settings, &database, None, &crate::portal::metrics::Metrics::unseen());
        Self { dir, database, directory, policies, admin, partner, links, exports }
    }

    fn owner(&self) -> Owner {
        Owner { partner_id: self.partner, issuer: "i".into(), sub: "u".into() }
    }

    async fn queue(&self, body: &str, tenants: &[&str], holds: &str) -> Uuid {
        let now = "2026-02-01T00:00:00Z".parse().unwrap();
        let (content, _) = request::read(body.as_bytes(), now).unwrap();
        let request = ExportRequest {
            content,
            tenants: tenants.iter().map(|tenant| TenantId::new(tenant).unwrap()).collect(),
            rights: Rights { holds: vec![holds.into()], ip: [127, 0, 0, 1].into(), mfa: false },
        };
        let (id, now) = (Uuid::now_v7(), Millis::now());
        self.exports.jobs.create(id, &self.owner(), &request, now, Millis(now.0 + KEEP_MS)).await.unwrap();
        id
    }

    fn worker(&self, source: &Arc<Scripted>) -> Arc<ExportWorker<Arc<Scripted>>> {
        let mut worker = self.exports.worker(Arc::clone(source), &self.database, &self.policies, &self.directory);
        worker.workshop.pauses = vec![Duration::from_millis(1); 2];
        Arc::new(worker)
    }

    async fn job(&self, id: Uuid) -> ExportJob<ExportRequest> {
        self.exports.jobs.of(id, &self.owner()).await.unwrap().unwrap()
    }

    async fn until(&self, id: Uuid, state: JobState) -> ExportJob<ExportRequest> {
        let began = Instant::now();
        loop {
            let job = self.job(id).await;
            if job.state == state {
                return job;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{:?} {:?}", job.state, job.error);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs a worker until the job is in this state.
    async fn work(&self, id: Uuid, source: &Arc<Scripted>, state: JobState) -> ExportJob<ExportRequest> {
        let (stop, stopped) = watch::channel(Shift::Working);
        let running = tokio::spawn(self.worker(source).run(stopped));
        let job = self.until(id, state).await;
        stop.send_replace(Shift::Over);
        running.await.unwrap();
        job
    }

    fn text(&self, job: &ExportJob<ExportRequest>) -> String {
        std::fs::read_to_string(self.exports.folder().join(job.file_name.as_ref().unwrap())).unwrap()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("exports")).map_or(0, Iterator::count)
    }
}

const CSV: &str =
    r#"{"format":"csv","from_date":"2026-01-01","to_date":"2026-01-31","columns":["invoice_id","tenant_name"]}"#;

fn source(rows: &[(&str, usize)]) -> Arc<Scripted> {
    let rows = rows.iter().map(|(tenant, rows)| ((*tenant).to_owned(), *rows)).collect();
    Arc::new(Scripted { rows, ..Scripted::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_whole_even_where_a_source_failed_half_way() {
    let stage = Stage::new(&["a", "b"]).await;
    let source = source(&[("a", 2), ("b", 4)]);
    source.fails.store(2, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a", "b"], rights::PERMISSION).await;
    let job = stage.work(id, &source, JobState::Completed).await;
    assert_eq!((job.row_count, stage.files()), (6, 1));
    let text = stage.text(&job);
    let rows = ["a-0,'=a", "a-1,'=a", "b-0,'=b", "b-1,'=b", "b-2,'=b", "b-3,'=b"];
    let quoted = |row: &str| format!("\"{}\"\r\n", row.replace(',', "\",\""));
    assert_eq!(text, quoted("invoice_id,tenant_name") + &rows.map(quoted).concat());
    assert_eq!(job.file_size, Some(i64::try_from(text.len()).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stays_away_fails_the_whole() {
    let stage = Stage::new(&["a", "b"]).await;
    let source = source(&[("a", 2), ("b", 4)]);
    source.fails.store(100, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a", "b"], rights::PERMISSION).await;
    let job = stage.work(id, &source, JobState::Failed).await;
    assert_eq!(job.error.as_deref(), Some("tenant `a` could not be read, 3 times: no answer in time"));
    assert_eq!(stage.files(), 0, "nothing is left behind");
    let source = Arc::new(Scripted { truncated: true, ..Scripted::default() });
    let id = stage.queue(CSV, &["a"], rights::PERMISSION).await;
    let job = stage.work(id, &source, JobState::Failed).await;
    assert!(job.error.unwrap().contains("more invoices"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_or_right_that_ended_is_not_read() {
    let stage = Stage::new(&["a", "b"]).await;
    let source = source(&[("a", 2), ("b", 2)]);
    let id = stage.queue(CSV, &["a", "b"], "partner.tenants.list").await;
    let job = stage.work(id, &source, JobState::Failed).await;
    assert!(job.error.unwrap().contains("(permission)"));
    let change = stage.admin.revoke_link(&Actor::new("test"), stage.links["b"], None).await.unwrap().change;
    stage.directory.notice(&change).await;
    let id = stage.queue(CSV, &["a", "b"], rights::PERMISSION).await;
    let job = stage.work(id, &source, JobState::Failed).await;
    assert!(job.error.unwrap().contains("tenant `b` ended"));
    assert_eq!((source.asked.lock().unwrap().clone(), stage.files()), (vec!["a".to_owned()], 0));
}

/// Pages come one after the other, for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_ends_while_it_is_read_is_read_no_further() {
    let stage = Stage::new(&["a"]).await;
    let slow = source(&[("a", 4)]);
    slow.hangs.store(1, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a"], rights::PERMISSION).await;
    let (stop, stopped) = watch::channel(Shift::Working);
    let running = tokio::spawn(stage.worker(&slow).run(stopped));
    while stage.job(id).await.row_count != 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let change = stage.admin.revoke_link(&Actor::new("test"), stage.links["a"], None).await.unwrap().change;
    stage.directory.notice(&change).await;
    let job = stage.until(id, JobState::Failed).await;
    assert!(job.error.unwrap().contains("(link_inactive)"));
    assert_eq!((slow.hangs.load(Ordering::SeqCst), stage.files()), (1, 0), "the source still hangs");
    stop.send_replace(Shift::Over);
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_leaves_its_job_to_the_next() {
    let stage = Stage::new(&["a"]).await;
    let dying = source(&[("a", 4)]);
    dying.hangs.store(1, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a"], rights::PERMISSION).await;
    let (_stop, stopped) = watch::channel(Shift::Working);
    let running = tokio::spawn(stage.worker(&dying).run(stopped));
    stage.until(id, JobState::Running).await;
    while dying.asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // As a kill would: nothing is given back.
    running.abort();
    let healthy = source(&[("a", 4)]);
    let job = stage.work(id, &healthy, JobState::Completed).await;
    assert_eq!((job.attempts, job.row_count), (2, 4));
    assert_eq!(stage.text(&job).lines().count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_the_job_back_at_once() {
    let stage = Stage::new(&["a"]).await;
    let slow = source(&[("a", 4)]);
    slow.hangs.store(1, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a"], rights::PERMISSION).await;
    let job = {
        let (stop, stopped) = watch::channel(Shift::Working);
        let running = tokio::spawn(stage.worker(&slow).run(stopped));
        stage.until(id, JobState::Running).await;
        stop.send_replace(Shift::Over);
        running.await.unwrap();
        stage.job(id).await
    };
    assert_eq!((job.state, job.attempts, stage.files()), (JobState::Queued, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_job_keeps_its_lease() {
    let stage = Stage::new(&["a"]).await;
    let slow = source(&[("a", 4)]);
    slow.hangs.store(1, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a"], rights::PERMISSION).await;
    let (stop, stopped) = watch::channel(Shift::Working);
    let workers = [stage.worker(&slow), stage.worker(&slow)];
    let running = workers.map(|worker| tokio::spawn(worker.run(stopped.clone())));
    // Several leases long.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.job(id).await.row_count, 2, "progress shows");
    slow.hangs.store(0, Ordering::SeqCst);
    let job = stage.until(id, JobState::Completed).await;
    assert_eq!((job.attempts, slow.asked.lock().unwrap().len()), (1, 1));
    stop.send_replace(Shift::Over);
    for one in running {
        one.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_fails_and_frees_its_worker() {
    let stage = Stage::new(&["a", "b"]).await;
    let slow = source(&[("b", 4)]);
    slow.hangs.store(1, Ordering::SeqCst);
    let id = stage.queue(CSV, &["a", "b"], rights::PERMISSION).await;
    let next = stage.queue(CSV, &["a"], rights::PERMISSION).await;
    let mut worker = stage.worker(&slow);
    Arc::get_mut(&mut worker).unwrap().workshop.longest = Duration::from_secs(1);
    let (stop, stopped) = watch::channel(Shift::Working);
    let running = tokio::spawn(worker.run(stopped));
    let job = stage.until(id, JobState::Failed).await;
    let error = "it took longer than 1 minutes and was ended while tenant `b` was read, after 1 of 2 tenants: narrow \
                 the dates, or ask for fewer tenants at a time";
    assert_eq!((job.error.as_deref(), job.attempts), (Some(error), 1));
    stage.until(next, JobState::Completed).await;
    assert_eq!(stage.files(), 1, "what was begun is gone");
    stop.send_replace(Shift::Over);
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pdf_beyond_its_bound_says_so_and_old_files_go() {
    let stage = Stage::new(&["a"]).await;
    let body = r#"{"format":"pdf","from_date":"2026-01-01","to_date":"2026-01-31"}"#;
    let id = stage.queue(body, &["a"], rights::PERMISSION).await;
    let job = stage.work(id, &source(&[("a", 101)]), JobState::Failed).await;
    assert!(job.error.unwrap().contains("at most 100 invoices"));
    let id = stage.queue(body, &["a"], rights::PERMISSION).await;
    let job = stage.work(id, &source(&[("a", 100)]), JobState::Completed).await;
    assert_eq!((job.row_count, stage.files()), (100, 1));
    std::fs::write(
        stage
            .exports
            .folder()
            .join(job::file_name(crate::store::Lease { job: id, id: Uuid::nil() }, request::Format::Csv)),
        b"stray",
    )
    .unwrap();
    let worker = stage.worker(&source(&[]));
    worker.strays(Duration::ZERO).await;
    assert_eq!(stage.files(), 1, "only what a job knows");
    worker.clean(job.expires_at).await;
    assert_eq!((stage.files(), stage.job(id).await.state), (0, JobState::Expired));
}

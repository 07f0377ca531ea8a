//! The emergency overlay through the real command line, another process, on both databases: each scope refuses the next
//! request and cuts open streams within a second, leaves alone what it does not name, and is lifted by itself.

use std::time::{Duration, Instant};

use linkgate::{
    domain::Millis,
    store::{Database, SuspensionScope, admin::SuspensionInput},
};
use serde_json::{Value, json};

use super::{
    cli_support::{Ran, linkgate, run},
    client::{Connection, Request},
    postgres_support::{PostgresDatabase, server},
    rig::{HOME1, HOME2, ISSUER, P1, POSTGRES, Rig, Setup, actor},
};

const BOUND: Duration = Duration::from_secs(1);
const SUSPENDED: &str = "TENANT_ACCESS_DENIED/access_suspended";

/// A gateway, and the command line beside it. The rig goes first: it holds connections to the database.
pub struct House {
    pub rig: Rig,
    url: Option<String>,
    _postgres: Option<PostgresDatabase>,
}

impl House {
    pub fn sqlite() -> Self {
        Self::with(Setup::default(), None)
    }

    pub fn postgres() -> Self {
        Self::with(Setup::default(), Some(PostgresDatabase::make(&server())))
    }

    pub fn with(setup: Setup, made: Option<PostgresDatabase>) -> Self {
        let url = made.as_ref().map(|made| made.url.clone());
        let rig = Rig::with(Setup { postgres: url.clone(), ..setup });
        Self { rig, url, _postgres: made }
    }

    pub fn command(&self, arguments: &[&str]) -> Ran {
        let config = self.rig.dir.path().join("linkgate.toml");
        let mut command = linkgate(&["--config", config.to_str().unwrap(), "--json"]);
        if let Some(url) = &self.url {
            command.env(POSTGRES, url);
        }
        run(command.args(arguments))
    }

    /// Confirmed, and done.
    pub fn done(&self, arguments: &[&str]) -> Value {
        let ran = self.command(&[&["--yes"], arguments].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Asks until the answer is this one (empty: 200); how long that took.
    pub fn becomes(&self, request: &Request, expected: &str) -> Duration {
        let since = Instant::now();
        loop {
            let answer = request.send(self.rig.public);
            let told = if answer.status == 200 { String::new() } else { answer.error() };
            if told == expected {
                return since.elapsed();
            }
            assert!(since.elapsed() < BOUND, "`{expected}` is not in force within {BOUND:?}: still `{told}`");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&$crate::emergency::House::sqlite()); })+
        }
        mod postgres {
            $(#[test] fn $name() { super::$name(&$crate::emergency::House::postgres()); })+
        }
    };
}
pub(super) use on_both;

on_both!(each_scope_refuses_cuts_and_is_lifted, a_suspension_is_in_force_in_time_under_load);

/// What one scope does to the user who is meant, in the link that is meant.
struct Case {
    words: Vec<String>,
    /// Home requests of the user are refused too.
    home: bool,
    /// So is the other user of the same partner, in the same tenant.
    colleague: bool,
    /// So is the user in another tenant.
    elsewhere: bool,
    /// So is another partner's user, in another tenant.
    stranger: bool,
}

fn cases(rig: &Rig) -> Vec<Case> {
    let case = |words: &[&str], [home, colleague, elsewhere, stranger]: [bool; 4]| Case {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        home,
        colleague,
        elsewhere,
        stranger,
    };
    let link = rig.links["t-full"].to_string();
    vec![
        case(&["user", "user-1", "--issuer", ISSUER], [true, false, true, false]),
        case(&["user", "user-1"], [true, false, true, false]),
        case(&["session", "s-meant"], [true, false, true, false]),
        case(&["token", "j-meant"], [true, false, true, false]),
        case(&["link", &link], [false, true, false, false]),
        case(&["tenant", "t-full"], [false, true, false, false]),
        case(&["partner", P1], [false, true, true, false]),
        case(&["everything"], [false, true, true, true]),
    ]
}

fn token(rig: &Rig, sub: &str, home: &str, session: &str, jti: &str) -> String {
    rig.token_with(sub, home, json!({"roles": ["partner_msp_full"], "session_id": session, "jti": jti}))
}

pub fn stream(rig: &Rig, request: Request, id: &str) -> Connection {
    let mut connection = Connection::open(rig.public);
    connection.write(&request.header("X-Request-ID", id).bytes());
    assert_eq!(connection.head().status, 200);
    assert!(!connection.read_some().is_empty());
    connection
}

/// Whether bytes still come.
fn flows(connection: &mut Connection) -> bool {
    connection.read_some();
    !connection.read_some().is_empty()
}

/// Reads until the stream ends; fails if that takes longer than the bound.
pub fn ends_in_time(connection: &mut Connection, since: Instant) {
    connection.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    connection.drain();
    assert!(since.elapsed() < BOUND + Duration::from_millis(100), "the stream went on for {:?}", since.elapsed());
}

fn each_scope_refuses_cuts_and_is_lifted(house: &House) {
    let rig = &house.rig;
    let meant = token(rig, "user-1", HOME1, "s-meant", "j-meant");
    let colleague = token(rig, "user-1-b", HOME1, "s-other", "j-other");
    let stranger = token(rig, "user-2", HOME2, "s-far", "j-far");
    let ask = |token: &str, tenant: &str| Request::get("/api/invoices").bearer(token).tenant(tenant);
    let sse = |token: &str| Request::get("/t/sse").bearer(token);
    let expected = |refused: bool| if refused { SUSPENDED } else { "" };
    for (at, case) in cases(rig).iter().enumerate() {
        let mut crossing = stream(rig, sse(&meant).tenant("t-full"), &format!("cross-{at}"));
        let mut at_home = stream(rig, sse(&meant), &format!("home-{at}"));
        let mut beside = stream(rig, sse(&colleague).tenant("t-billing"), &format!("beside-{at}"));
        let mut far = stream(rig, sse(&stranger).tenant("t-other"), &format!("far-{at}"));
        let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
        let done = house.done(&[&["suspend"], &words[..], &["--reason", "incident 7"]].concat());
        let since = Instant::now();
        let took = house.becomes(&ask(&meant, "t-full"), SUSPENDED);
        println!("{words:?}: refused {took:?} after the command ended");

        // `no_link` stands before every other gate.
        assert_eq!(ask(&meant, "t-nobody").send(rig.public).error(), "TENANT_ACCESS_DENIED/no_link", "{words:?}");
        ends_in_time(&mut crossing, since);
        house.becomes(&ask(&meant, "t-billing"), expected(case.elsewhere));
        house.becomes(&ask(&colleague, "t-full"), expected(case.colleague));
        house.becomes(&ask(&stranger, "t-other"), expected(case.stranger));
        house.becomes(&Request::get("/own").bearer(&meant), expected(case.home));
        house.becomes(&Request::get("/own").bearer(&colleague), "");
        for (stream, cut) in [
            (&mut at_home, case.home),
            // The colleague loses the other tenant only where the partner does.
            (&mut beside, case.colleague && case.elsewhere),
            (&mut far, case.stranger),
        ] {
            if cut {
                ends_in_time(stream, since);
            } else {
                assert!(flows(stream), "{words:?}: a stream that it does not name was cut");
            }
        }
        // An overlay: the row is as it was.
        let link = rig.block_on(rig.admin().link(rig.links["t-full"])).unwrap();
        assert_eq!((link.terms.is_active, link.stamps.version), (true, 1), "{words:?}");
        let again = house.command(&[&["--yes", "suspend"], &words[..], &["--reason", "again"]].concat());
        assert_eq!(again.code, 5, "{}", again.err);
        assert!(again.err.contains(done["id"].as_str().unwrap()), "{}", again.err);

        house.done(&["restore", done["id"].as_str().unwrap()]);
        house.becomes(&ask(&meant, "t-full"), "");
        house.becomes(&Request::get("/own").bearer(&meant), "");
        house.becomes(&ask(&stranger, "t-other"), "");
    }
    assert_eq!(house.done(&["suspensions"]), json!([]));
    let all = house.done(&["suspensions", "--all"]);
    let first = &all[0];
    assert_eq!(
        (all.as_array().unwrap().len(), &first["reason"], &first["scope"]),
        (8, &json!("incident 7"), &json!("user"))
    );
    assert!(first["by"].as_str().unwrap().starts_with("cli:") && first["lifted_at"].is_string(), "{first}");
    recorded(house);
}

/// What was cut says why, and both ends of each suspension are in the journal with who and why.
fn recorded(house: &House) {
    let since = Instant::now();
    loop {
        let (lines, records) = (house.rig.lines(), house.rig.records());
        let of = |action: &str| {
            let found = lines.iter().filter(|line| line["pub"]["action"] == action || line["priv"]["action"] == action);
            found.cloned().collect::<Vec<_>>()
        };
        let (begun, lifted) = (of("suspension.begin"), of("suspension.lift"));
        let cut = |id: &str| records.iter().find(|record| record["request_id"] == id && record["lines"] == 2);
        if let (8, 8, Some(cross), Some(home)) = (begun.len(), lifted.len(), cut("cross-0"), cut("home-0")) {
            assert_eq!((&cross["aborted"], &cross["reason"]), (&json!(true), &json!("access_suspended")));
            assert_eq!((&home["aborted"], &home["reason"]), (&json!(true), &json!("access_suspended")));
            let told = begun[0].to_string();
            assert!(told.contains("\"cli:") && told.contains("incident 7"), "{told}");
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "{} begun, {} lifted", begun.len(), lifted.len());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Twenty suspensions of each of two kinds, made by another handle on the database, each under load on a connection of
/// its own: from the commit on, the time to the first refusal, after which nothing is allowed.
fn a_suspension_is_in_force_in_time_under_load(house: &House) {
    let rig = &house.rig;
    let input =
        |scope, subject: &str| SuspensionInput { scope, issuer: None, subject: subject.into(), reason: "r".into() };
    let request = Request::get("/api/invoices").bearer(&rig.token()).tenant("t-full");
    for input in [input(SuspensionScope::User, "user-1"), input(SuspensionScope::Tenant, "t-full")] {
        let mut times = Vec::new();
        for _ in 0..20 {
            house.becomes(&request, "");
            let made = rig.block_on(rig.admin().suspend(&actor(), &input)).unwrap().value;
            let committed = Instant::now();
            let mut refused = None;
            let mut connection = Connection::open(rig.public);
            while committed.elapsed() < Duration::from_millis(600) {
                connection.write(&request.bytes());
                match (connection.answer().status, refused) {
                    (200, None) => assert!(committed.elapsed() < BOUND),
                    (403, None) => refused = Some(committed.elapsed()),
                    (403, Some(_)) => {}
                    // The answer before was under way when the suspension came, and was cut with its connection.
                    (0, None) => connection = Connection::open(rig.public),
                    (other, _) => panic!("{other} after {:?}, refused after {refused:?}", committed.elapsed()),
                }
            }
            times.push(refused.expect("it is refused"));
            rig.block_on(rig.admin().restore(&actor(), made.id)).unwrap();
        }
        times.sort_unstable();
        println!("{:?}: commit to refusal p50 {:?}, max {:?}", input.scope, times[10], times[19]);
    }
}

/// What stands between somebody who is in a hurry and a mistake.
#[test]
fn the_command_tells_asks_and_refuses_what_it_cannot_mean() {
    let house = House::sqlite();
    let (link, refused) = (house.rig.links["t-full"].to_string(), |words: &[&str]| house.command(words));
    // Without a terminal the answer is no, and what it would have covered was told.
    let asked = refused(&["suspend", "tenant", "t-full", "--reason", "x"]);
    assert_eq!(asked.code, 8, "{}", asked.err);
    assert!(asked.err.contains("suspends tenant t-full: 1 live link of 1 partner to 1 tenant"), "{}", asked.err);
    let all = refused(&["suspend", "everything", "--reason", "x"]);
    assert!(all.code == 8 && all.err.contains("of 2 partners to"), "{}", all.err);
    assert_eq!(house.done(&["suspensions"]), json!([]), "nothing was changed");
    let nobody = "00000000-0000-4000-8000-000000000001";
    for (words, code) in [
        (vec!["--yes", "suspend", "tenant", "t-full"], 2),
        (vec!["--yes", "suspend", "tenant", "t-full", "--reason", "  "], 3),
        (vec!["--yes", "suspend", "tenant", "t-ful", "--reason", "x"], 4),
        (vec!["--yes", "suspend", "partner", nobody, "--reason", "x"], 4),
        (vec!["--yes", "suspend", "link", nobody, "--reason", "x"], 4),
        (vec!["--yes", "suspend", "link", "t-full", "--reason", "x"], 2),
        (vec!["--yes", "restore", nobody], 4),
    ] {
        let ran = refused(&words);
        assert_eq!(ran.code, code, "{words:?}: {}", ran.err);
    }
    // A policy set that does not load is no obstacle.
    let config = house.rig.dir.path().join("linkgate.toml");
    std::fs::create_dir_all(house.rig.dir.path().join("broken")).unwrap();
    let text = std::fs::read_to_string(&config).unwrap().replace("[policy]\n", "[policy]\ndir = \"broken\"\n");
    std::fs::write(&config, text).unwrap();
    assert_eq!(refused(&["link", "show", &link]).code, 3);
    let done = house.done(&["suspend", "link", &link, "--reason", "x", "--actor", "on call"]);
    assert_eq!((&done["by"], &done["covers"]["live_links"]), (&json!("on call"), &json!(1)));
    assert!(done["in_force_by"].is_string());
    house.done(&["restore", done["id"].as_str().unwrap()]);
    let twice = refused(&["--yes", "restore", done["id"].as_str().unwrap()]);
    assert!(twice.code == 5 && twice.err.contains("was lifted already"), "{}", twice.err);
}

/// Restoring one of two lifts that one: the other still covers.
#[test]
fn what_else_covers_the_same_subject_stays() {
    let house = House::sqlite();
    let request = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-full");
    let one = house.done(&["suspend", "tenant", "t-full", "--reason", "one"]);
    let other = house.done(&["suspend", "partner", P1, "--reason", "other"]);
    house.rig.revoke("t-billing");
    house.becomes(&request, SUSPENDED);
    house.done(&["restore", one["id"].as_str().unwrap()]);
    std::thread::sleep(BOUND);
    assert_eq!(request.send(house.rig.public).error(), SUSPENDED);
    house.done(&["restore", other["id"].as_str().unwrap()]);
    house.becomes(&request, "");
    // What was revoked meanwhile stays revoked.
    let revoked = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-billing");
    assert_eq!(revoked.send(house.rig.public).error(), "TENANT_ACCESS_DENIED/link_inactive");
}

/// A replica that lost the database refuses partner access in time, whatever was suspended meanwhile, and knows of it
/// before anything is allowed again.
#[test]
fn a_replica_without_its_database_refuses_and_learns_before_it_allows() {
    let house = House::sqlite();
    let (rig, meant) = (&house.rig, house.rig.token());
    let cross = Request::get("/api/invoices").bearer(&meant).tenant("t-full");
    let home = Request::get("/own").bearer(&meant);
    assert_eq!((cross.send(rig.public).status, home.send(rig.public).status), (200, 200));
    let away = rig.take_database_away();
    rig.block_on(async {
        let path = rig.dir.path().join("linkgate.away");
        let settings = linkgate::config::settings::DatabaseSettings::Sqlite { path };
        let database = Database::open(&settings).await.unwrap();
        let roles = std::sync::Arc::new(linkgate::policy::Bundle::load(None).unwrap().roles().clone());
        let admin = linkgate::store::Admin::new(&database, roles, false);
        let user = SuspensionInput {
            scope: SuspensionScope::User,
            issuer: None,
            subject: "user-1".into(),
            reason: "r".into(),
        };
        admin.suspend(&actor(), &user).await.unwrap();
        database.close().await;
    });
    let began = Millis::now();
    std::thread::sleep(Duration::from_millis(1_300));
    assert_eq!(cross.send(rig.public).error(), "LINKS_STALE");
    assert_eq!(home.send(rig.public).status, 200, "home is answered by what was known last");
    away.bring_back();
    loop {
        let answer = cross.send(rig.public);
        if answer.status != 503 {
            assert_eq!(answer.error(), SUSPENDED, "never allowed in between");
            break;
        }
        assert!(Millis::now().0 - began.0 < 8_000, "no recovery");
    }
    assert_eq!(home.send(rig.public).error(), SUSPENDED);
}

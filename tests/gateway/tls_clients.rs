//! Client certificates: who is let in, whom they stand for, and what ends them.

use std::{
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use linkgate::{
    identity::certificate_id,
    store::{SuspensionScope, admin::SuspensionInput},
};
use rcgen::{SanType, SerialNumber};
use rustls::{
    ClientConnection, HandshakeKind, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    client::{Answer, Connection, Request},
    reload::until,
    rig::{HOME1, Rig, Setup, actor},
    tls::metric,
    tls_support::{Authority, Client, Leaf, connect as tls_connect, expired, named, put},
};

const ROBOT: &str = "spiffe://partner.test/robot";

/// A gateway that asks for certificates of `partners`.
struct Door {
    rig: Rig,
    servers: Authority,
    partners: Authority,
    files: tempfile::TempDir,
}

impl Door {
    fn start(auth: &str, clients: &str, revocation: bool) -> Self {
        let (servers, partners, files) =
            (Authority::new("servers"), Authority::new("partners"), tempfile::tempdir().unwrap());
        let pair = servers.server(&["gateway.test"]).put(files.path(), "tls");
        let ca = partners.put(files.path(), "partners.pem");
        let list = files.path().join("partners.crl");
        put(&list, &partners.revocations(&[]));
        let crl = if revocation { format!("client_crl = [\"{}\"]\n", list.display()) } else { String::new() };
        let listen = format!(
            "[listen.tls]\ncertificates = [{pair}]\nclient_auth = \"{auth}\"\nclient_ca = [\"{}\"]\n{crl}clients = [{clients}]\n",
            ca.display()
        );
        Self { rig: Rig::with(Setup { listen, ..Setup::default() }), servers, partners, files }
    }

    /// What is answered; status 0 where the connection does not come to be.
    fn ask(&self, shows: Option<&Leaf>, request: &Request) -> Answer {
        match (Client { shows, ..Client::trusting(&self.servers) }).connect(self.rig.public, "gateway.test") {
            Err(_) => Answer::default(),
            Ok(stream) => {
                let mut connection = Connection::on(stream);
                if connection.try_write(&request.bytes()).is_err() {
                    return Answer::default();
                }
                connection.answer()
            }
        }
    }

    fn refused(&self) -> f64 {
        metric(&self.rig, "linkgate_tls_handshakes_total{result=\"client_certificate\"}")
    }
}

fn invoices() -> Request {
    Request::get("/api/invoices").tenant("t-full")
}

#[test]
fn a_certificate_that_is_needed_must_come_from_the_right_authority_and_count_now() {
    let door = Door::start("required", "", false);
    let request = invoices().bearer(&door.rig.token());
    let good = door.partners.spiffe(ROBOT);
    assert_eq!(door.ask(Some(&good), &request).status, 200);
    let foreign = Authority::new("partners").spiffe(ROBOT);
    let ended = door.partners.leaf(&[], |params| {
        params.subject_alt_names.push(SanType::URI(ROBOT.try_into().unwrap()));
        expired(params);
    });
    for (at, (shows, what)) in
        [(None, "none"), (Some(&foreign), "of another authority with the right name"), (Some(&ended), "past its time")]
            .into_iter()
            .enumerate()
    {
        assert_eq!(door.ask(shows, &request).status, 0, "{what}");
        until(what, || door.refused() == (at + 1) as f64);
    }
    assert_eq!(door.rig.upstream.count(), 1);
}

#[test]
fn a_certificate_that_is_not_needed_must_be_good_all_the_same() {
    let door = Door::start("optional", "", false);
    let request = invoices().bearer(&door.rig.token());
    assert_eq!(door.ask(None, &request).status, 200);
    assert_eq!(door.ask(Some(&Authority::new("partners").spiffe(ROBOT)), &request).status, 0);
    // Good, but nobody's: it neither helps nor harms.
    let unmapped = door.partners.spiffe(ROBOT);
    assert_eq!(door.ask(Some(&unmapped), &request).status, 200);
    assert_eq!(door.ask(Some(&unmapped), &invoices()).error(), "UNAUTHORIZED");
}

#[test]
fn a_token_beside_a_certificate_must_be_the_same_users() {
    let door =
        Door::start("optional", &format!("{{ spiffe = \"{ROBOT}\", issuer = \"main\", sub = \"user-1\" }}"), false);
    let robot = door.partners.spiffe(ROBOT);
    assert_eq!(door.ask(Some(&robot), &invoices().bearer(&door.rig.token())).status, 200);
    let other = door.rig.token_with("user-1-b", HOME1, serde_json::json!({"roles": ["partner_msp_full"]}));
    assert_eq!(door.ask(Some(&robot), &invoices().bearer(&other)).error(), "FORBIDDEN/identity_conflict");
    assert_eq!(door.ask(None, &invoices().bearer(&other)).status, 200, "alone it is a good token");
    // It is not said that the certificate is enough.
    assert_eq!(door.ask(Some(&robot), &invoices()).error(), "UNAUTHORIZED");
    assert_eq!(door.rig.upstream.count(), 2);
}

#[test]
fn a_certificate_that_is_enough_is_judged_like_a_token() {
    let rule = |name: &str, roles: &str| {
        format!(
            "{{ {name}, issuer = \"main\", sub = \"user-1\", sufficient = true, tenant_id = \"{HOME1}\", roles = [{roles}] }}"
        )
    };
    let rules = [
        rule(&format!("spiffe = \"{ROBOT}\""), "\"partner_msp_full\""),
        rule("common_name = \"clerk\"", ""),
        rule("subject = \"O=Example, CN=auditor\"", "\"partner_auditor\""),
        rule("dns = \"Host.partner.test\"", "\"partner_auditor\""),
    ];
    let door = Door::start("optional", &rules.join(", "), false);
    let robot = door.partners.spiffe(ROBOT);
    for _ in 0..2 {
        assert_eq!(door.ask(Some(&robot), &invoices()).status, 200);
    }
    let seen = door.rig.upstream.last();
    assert_eq!((seen.one("x-user-id"), seen.one("x-tenant-id")), ("user-1", "t-full"));
    assert_eq!(door.rig.records().last().unwrap()["user_id"], "user-1");
    assert_eq!(door.ask(Some(&robot), &Request::get("/own")).status, 200);
    assert!(door.rig.upstream.last().all("authorization").is_empty());
    let unlinked = Request::get("/api/invoices").tenant("t-other");
    assert_eq!(door.ask(Some(&robot), &unlinked).error(), "TENANT_ACCESS_DENIED/no_link");
    assert_eq!(door.ask(Some(&robot), &invoices().header("Authorization", "Bearer bad")).error(), "UNAUTHORIZED");
    let mfa = Request::get("/api/invoices").tenant("t-mfa");
    assert_eq!(door.ask(Some(&robot), &mfa).error(), "FORBIDDEN/mfa_required");

    let clerk = door.partners.leaf(&[], |params| params.distinguished_name = named("clerk"));
    assert_eq!(door.ask(Some(&clerk), &invoices()).error(), "FORBIDDEN/permission");
    let auditor = door.partners.leaf(&[], |params| params.distinguished_name = named("auditor"));
    let host = door.partners.server(&["host.partner.test"]);
    let write = || Request::new("POST", "/api/invoices").tenant("t-full").json("{}");
    for reader in [&auditor, &host] {
        assert_eq!(door.ask(Some(reader), &invoices()).status, 200);
        assert_eq!(door.ask(Some(reader), &write()).error(), "FORBIDDEN/permission");
    }
    // Two URIs: which of them is meant?
    let two = door.partners.leaf(&[], |params| {
        for id in [ROBOT, "spiffe://partner.test/other"] {
            params.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
        }
    });
    assert_eq!(door.ask(Some(&two), &invoices()).error(), "UNAUTHORIZED");

    // A browser shows its certificate to whatever page asks.
    assert_eq!(door.ask(Some(&robot), &write()).status, 200);
    let from_elsewhere = write().header("Origin", "https://evil.test");
    assert_eq!(door.ask(Some(&robot), &from_elsewhere).error(), "UNAUTHORIZED");
    let from_here = write().header("Origin", "https://gateway.test");
    assert_eq!(door.ask(Some(&robot), &from_here).status, 200);
}

#[test]
fn only_a_proxy_with_its_certificate_is_believed_about_clients() {
    let door = Door::start("optional", "{ dns = \"edge.partner.test\", trusted_proxy = true }", false);
    let edge = door.partners.server(&["edge.partner.test"]);
    let request =
        Request::get("/public/a").header("X-Forwarded-For", "203.0.113.7").header("X-Forwarded-Host", "shop.test");
    for (shows, chain, host) in [
        (Some(&edge), "203.0.113.7, 127.0.0.1", "shop.test"),
        (None, "127.0.0.1", "gateway.test"),
        (Some(&door.partners.server(&["other.partner.test"])), "127.0.0.1", "gateway.test"),
    ] {
        assert_eq!(door.ask(shows, &request).status, 200);
        let seen = door.rig.upstream.last();
        assert_eq!((seen.one("x-forwarded-for"), seen.one("x-forwarded-host")), (chain, host));
    }
    // What it may say is where a request comes from, not who it is.
    assert_eq!(door.ask(Some(&edge), &invoices()).error(), "UNAUTHORIZED");
}

#[test]
fn a_revoked_certificate_opens_nothing_and_ends_what_is_open() {
    let door = Door::start("required", "", true);
    let serial =
        |number: u64| door.partners.leaf(&[], |params| params.serial_number = Some(SerialNumber::from(number)));
    let (first, second) = (serial(7), serial(8));
    let request = invoices().bearer(&door.rig.token());
    let client = Client { shows: Some(&first), ..Client::trusting(&door.servers) };
    let mut open = Connection::on(client.connect(door.rig.public, "gateway.test").unwrap());
    open.write(&request.bytes());
    assert_eq!(open.answer().status, 200);
    put(&door.files.path().join("partners.crl"), &door.partners.revocations(&[7]));
    until("the open connection is not believed any more", || {
        open.write(&request.bytes());
        open.answer().status == 401
    });
    assert_eq!(door.ask(Some(&first), &request).status, 0);
    assert_eq!(door.ask(Some(&second), &request).status, 200);
}

/// Puts lists in place of those that are loaded, and waits until they are read.
fn load(door: &Door, lists: &[String]) {
    let loads = || door.rig.lines().iter().filter(|line| line["pub"]["action"] == "tls.load").count();
    let before = loads();
    put(&door.files.path().join("partners.crl"), &lists.concat());
    until("the lists are read", || loads() > before);
}

#[test]
fn whoever_stands_on_any_list_is_refused_and_the_newest_one_must_be_in_time() {
    let door = Door::start("required", "", true);
    let serial =
        |number: u64| door.partners.leaf(&[], |params| params.serial_number = Some(SerialNumber::from(number)));
    let (revoked, good) = (serial(7), serial(8));
    let request = invoices().bearer(&door.rig.token());
    let at = |hours: i64| {
        let by = Duration::from_secs(hours.unsigned_abs() * 3_600);
        if hours < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    };
    let list = |serials: &[u64], made: i64, ends: i64| door.partners.revocations_of(serials, at(made), at(ends));
    let (old, new, past) = (list(&[], -9, 9), list(&[7], -3, 9), list(&[], -9, -6));
    for lists in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()], vec![past.clone(), new.clone()]] {
        load(&door, &lists);
        assert_eq!(door.ask(Some(&revoked), &request).status, 0, "the newer list names it");
        assert_eq!(door.ask(Some(&good), &request).status, 200, "nobody names it");
    }
    // It was taken off: the older list is believed about it all the same, until it goes.
    let lifted = list(&[], -1, 9);
    load(&door, &[lifted.clone(), new]);
    assert_eq!(door.ask(Some(&revoked), &request).status, 0);
    load(&door, &[lifted]);
    assert_eq!(door.ask(Some(&revoked), &request).status, 200);
    // The newest one is past its time.
    load(&door, &[old, list(&[], -3, -1)]);
    assert_eq!(door.ask(Some(&good), &request).status, 0);
}

#[test]
fn an_authority_that_is_revoked_or_that_no_list_tells_of_lets_nobody_in() {
    let door = Door::start("required", "", true);
    let issuing = door.partners.below("issuing", 77, |_| {});
    let leaf = issuing.spiffe(ROBOT);
    let request = invoices().bearer(&door.rig.token());
    let (own, above) = (issuing.revocations(&[]), door.partners.revocations(&[]));
    assert_eq!(door.ask(Some(&leaf), &request).status, 0, "no list of its issuer");
    load(&door, &[own.clone(), above]);
    assert_eq!(door.ask(Some(&leaf), &request).status, 200);
    load(&door, &[own.clone(), door.partners.revocations(&[77])]);
    assert_eq!(door.ask(Some(&leaf), &request).status, 0, "its issuer is revoked");
    load(&door, std::slice::from_ref(&own));
    assert_eq!(door.ask(Some(&leaf), &request).status, 0, "nobody tells of its issuer");
    // As a root of its own it needs no list of the one above, and that one can revoke it all the same.
    let both = door.partners.pem_with(&issuing);
    put(&door.files.path().join("partners.pem"), &both);
    let alone = Leaf { cert: leaf.cert.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().into(), ..leaf };
    until("it is a root", || door.ask(Some(&alone), &request).status == 200);
    load(&door, &[own, door.partners.revocations(&[77])]);
    assert_eq!(door.ask(Some(&alone), &request).status, 0, "its issuer is revoked, whatever is shown beside");
}

/// What time alone ends, ends for whoever is in as for whoever comes: on an open connection, in a session that goes on
/// from before, and in a new one. `partners`: of whom the gateway asks certificates.
fn ends_in_time(door: &Door, shows: &Leaf, version: &'static rustls::SupportedProtocolVersion) {
    let request = invoices().bearer(&door.rig.token());
    let config = Client { shows: Some(shows), versions: &[version], ..Client::trusting(&door.servers) }.config();
    let connect = || tls_connect(Arc::clone(&config), door.rig.public, "gateway.test");
    let mut open = Connection::on(connect().unwrap());
    open.write(&request.bytes());
    assert_eq!(open.answer().status, 200);
    let mut resumed = connect().unwrap();
    assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed), "a session goes on");
    let again = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        let mut connection = Connection::on(&mut *stream);
        connection.write(&request.bytes());
        connection.answer().status
    };
    assert_eq!(again(&mut resumed), 200);
    until("it has ended on the open connection", || {
        open.write(&request.bytes());
        open.answer().status == 401
    });
    let mut resumed = connect().unwrap();
    assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(again(&mut resumed), 401);
    assert_eq!(door.ask(Some(shows), &request).status, 0);
}

#[test]
fn a_list_past_its_time_ends_what_goes_on() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let door = Door::start("required", "", true);
        let short = door.partners.revocations_of(&[], SystemTime::now(), SystemTime::now() + Duration::from_secs(8));
        load(&door, &[short]);
        ends_in_time(&door, &door.partners.spiffe(ROBOT), version);
    }
}

#[test]
fn an_authority_past_its_time_ends_what_goes_on() {
    let door = Door::start("required", "", false);
    let ends = SystemTime::now() + Duration::from_secs(8);
    let issuing = door.partners.below("issuing", 77, |params| params.not_after = ends.into());
    ends_in_time(&door, &issuing.spiffe(ROBOT), &rustls::version::TLS13);
}

#[test]
fn open_streams_end_when_a_list_does() {
    let door = Door::start("optional", "", true);
    load(&door, &[door.partners.revocations_of(&[], SystemTime::now(), SystemTime::now() + Duration::from_secs(8))]);
    let mut streams = door.streams(&door.partners.spiffe(ROBOT), "list");
    let until = Instant::now() + SOON;
    streams.iter_mut().for_each(|stream| ends(stream, until));
    door.cut("list");
}

#[test]
fn a_suspended_certificate_is_refused_whatever_it_stands_for() {
    let rules = [
        format!(
            "{{ spiffe = \"{ROBOT}\", issuer = \"main\", sub = \"user-1\", sufficient = true, tenant_id = \"{HOME1}\", roles = [\"partner_msp_full\"] }}"
        ),
        "{ dns = \"clerk.partner.test\", issuer = \"main\", sub = \"user-1\" }".to_owned(),
        "{ dns = \"edge.partner.test\", trusted_proxy = true }".to_owned(),
    ];
    let door = Door::start("optional", &rules.join(", "), false);
    let (robot, clerk, edge) = (
        door.partners.spiffe(ROBOT),
        door.partners.server(&["clerk.partner.test"]),
        door.partners.server(&["edge.partner.test"]),
    );
    let with_token = invoices().bearer(&door.rig.token());
    let home = Request::get("/own").bearer(&door.rig.token());
    let forwarded = Request::get("/public/a").header("X-Forwarded-For", "203.0.113.7");
    assert_eq!(door.ask(Some(&robot), &invoices()).status, 200);
    assert_eq!(door.ask(Some(&edge), &forwarded).status, 200);
    let mut open = door.stream(&edge, Request::get("/public/sse"), "edge-public");
    for leaf in [&robot, &clerk, &edge] {
        for request in [&with_token, &home] {
            let answer = door.ask(Some(leaf), request);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let der = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap();
        let input = SuspensionInput {
            scope: SuspensionScope::Jti,
            issuer: None,
            subject: certificate_id(&der).to_string(),
            reason: "key lost".into(),
        };
        door.rig.block_on(door.rig.admin().suspend(&actor(), &input)).unwrap();
        for request in [&with_token, &home] {
            until("it is refused", || {
                let answer = door.ask(Some(leaf), request);
                answer.status == 403 && answer.error() == "TENANT_ACCESS_DENIED/access_suspended"
            });
        }
    }
    assert_eq!(door.ask(Some(&robot), &invoices()).error(), "TENANT_ACCESS_DENIED/access_suspended");
    assert_eq!(door.ask(Some(&edge), &forwarded).error(), "TENANT_ACCESS_DENIED/access_suspended");
    ends(&mut open, Instant::now() + SOON);
    assert_eq!(door.ask(None, &with_token).status, 200, "the token is as good as before");
}

#[test]
fn a_certificate_that_ends_takes_its_connection_with_it() {
    let door = Door::start("required", "", false);
    let short =
        door.partners.leaf(&[], |params| params.not_after = (SystemTime::now() + Duration::from_secs(4)).into());
    let request = invoices().bearer(&door.rig.token());
    let client = Client { shows: Some(&short), ..Client::trusting(&door.servers) };
    let mut open = Connection::on(client.connect(door.rig.public, "gateway.test").unwrap());
    open.write(&request.bytes());
    assert_eq!(open.answer().status, 200);
    until("it has ended", || {
        open.write(&request.bytes());
        open.answer().status == 401
    });
    assert_eq!(door.ask(Some(&short), &request).status, 0);
}

type Stream = Connection<StreamOwned<ClientConnection, TcpStream>>;

impl Door {
    /// A stream that flows until it is cut.
    fn stream(&self, shows: &Leaf, request: Request, id: &str) -> Stream {
        let client = Client { shows: Some(shows), ..Client::trusting(&self.servers) };
        let mut stream = Connection::on(client.connect(self.rig.public, "gateway.test").unwrap());
        stream.write(&request.header("X-Request-ID", id).bytes());
        assert!([101, 200].contains(&stream.head().status), "{id}");
        stream
    }

    /// One of each kind: in a managed tenant, at home, on a public route, and a WebSocket.
    fn streams(&self, shows: &Leaf, name: &str) -> Vec<Stream> {
        let token = self.rig.token();
        let websocket = Request::get("/t/ws")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "abc");
        [
            ("managed", Request::get("/t/sse").tenant("t-full").bearer(&token)),
            ("home", Request::get("/t/sse").bearer(&token)),
            ("public", Request::get("/public/sse")),
            ("ws", websocket.tenant("t-full").bearer(&token)),
        ]
        .map(|(kind, request)| self.stream(shows, request, &format!("{name}-{kind}")))
        .into()
    }

    /// The records of these streams say that they were cut, and why. A public route has none.
    fn cut(&self, name: &str) {
        for kind in ["managed", "home", "ws"] {
            until("its record is complete", || {
                let id = format!("{name}-{kind}");
                let record = self.rig.records().into_iter().find(|record| record["request_id"] == id.as_str()).unwrap();
                if record["lines"] != 2 {
                    return false;
                }
                assert_eq!((&record["aborted"], &record["reason"]), (&true.into(), &"client_certificate".into()));
                true
            });
        }
    }
}

/// Well above what is promised from the moment that the list is read, and well below a stream's own end, which never comes.
const SOON: Duration = Duration::from_secs(8);

/// Reads to its end, which must come before then.
fn ends(stream: &mut Stream, until: Instant) {
    while !stream.read_some().is_empty() {
        assert!(Instant::now() < until, "it flows on");
    }
    assert!(Instant::now() < until, "it came too late");
}

#[test]
fn open_streams_end_with_a_certificate_that_is_revoked() {
    let door = Door::start("required", "", true);
    let serial =
        |number: u64| door.partners.leaf(&[], |params| params.serial_number = Some(SerialNumber::from(number)));
    let (revoked, other) = (serial(7), serial(8));
    let mut ending = door.streams(&revoked, "revoked");
    let mut going_on = door.streams(&other, "other");
    put(&door.files.path().join("partners.crl"), &door.partners.revocations(&[7]));
    let until = Instant::now() + SOON;
    for stream in &mut ending {
        ends(stream, until);
    }
    door.cut("revoked");
    // Streams whose certificate is good flow on: each has more to say.
    for stream in going_on.iter_mut().take(3) {
        stream.read_some();
        assert!(!stream.read_some().is_empty());
    }
    let tunnel = going_on.last_mut().unwrap();
    tunnel.write(b"ping");
    assert_eq!(tunnel.read_some(), b"ping");
    assert_eq!(metric(&door.rig, "linkgate_streams_cut_total"), 4.0);
}

#[test]
fn open_streams_end_when_their_certificate_does() {
    let door = Door::start("required", "", false);
    let ends = SystemTime::now() + Duration::from_secs(8);
    let short = door.partners.leaf(&[], |params| params.not_after = ends.into());
    let mut ending = door.streams(&short, "short");
    let until = Instant::now() + Duration::from_secs(8) + SOON;
    for stream in &mut ending {
        self::ends(stream, until);
        // It is written in whole seconds, and counts to the end of its last.
        assert!(SystemTime::now() >= ends, "cut before its end");
    }
    door.cut("short");
}

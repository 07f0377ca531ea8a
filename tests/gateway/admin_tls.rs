//! TLS on the admin listener: nothing in clear, a certificate beside the token where one is asked for, files that change.

use std::io::{Read, Write};

use linkgate::server::admin::table::BASE;

use super::{
    admin_access::{VIEWER, section},
    client::{Connection, Request},
    reload::until,
    rig::{Rig, Setup},
    tls::loads,
    tls_support::{Authority, Client, shown},
};

struct House {
    rig: Rig,
    ca: Authority,
    files: tempfile::TempDir,
}

impl House {
    /// `more`: lines of `[admin.tls]`.
    fn with(more: impl FnOnce(&std::path::Path) -> String) -> Self {
        let (ca, files) = (Authority::new("servers"), tempfile::tempdir().unwrap());
        let pair = ca.server(&["admin.test"]).put(files.path(), "admin");
        let tls = format!("[admin.tls]\ncertificates = [{pair}]\n{}\n", more(files.path()));
        let extra = section(&format!("unauthenticated = 0\n{tls}"));
        Self { rig: Rig::with(Setup { extra, ..Setup::default() }), ca, files }
    }

    /// Status 0: there was no answer.
    fn ask(&self, client: &Client<'_>, request: &Request) -> u16 {
        let Ok(stream) = client.connect(self.rig.admin_api.unwrap(), "admin.test") else { return 0 };
        let mut connection = Connection::on(stream);
        // A certificate that is refused ends the connection after the client's part of the handshake (TLS 1.3).
        if connection.try_write(&request.bytes()).is_err() {
            return 0;
        }
        connection.answer().status
    }
}

fn tenants() -> Request {
    Request::get(&format!("{BASE}/tenants"))
}

#[test]
fn calls_come_over_tls_and_nothing_in_clear() {
    let house = House::with(|_| String::new());
    let client = Client::trusting(&house.ca);
    assert_eq!(house.ask(&client, &tenants().bearer(VIEWER)), 200);
    assert_eq!(house.ask(&client, &tenants()), 401, "TLS alone opens nothing");
    let old = Client { versions: &[&rustls::version::TLS12], ..Client::trusting(&house.ca) };
    assert!(old.connect(house.rig.admin_api.unwrap(), "admin.test").is_err(), "1.3 unless it is said otherwise");

    let mut clear = std::net::TcpStream::connect(house.rig.admin_api.unwrap()).unwrap();
    clear.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    clear.write_all(&tenants().bearer(VIEWER).bytes()).unwrap();
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = clear.read_to_end(&mut all);
    assert!(!String::from_utf8_lossy(&all).contains("HTTP/"));
}

#[test]
fn a_certificate_that_is_required_is_needed_beside_the_token() {
    let operators = Authority::new("operators");
    let house = House::with(|files| {
        let ca = operators.put(files, "operators.pem");
        format!("client_auth = \"required\"\nclient_ca = [{:?}]", ca.to_str().unwrap())
    });
    let known = operators.leaf(&["ann"], |_| ());
    let strangers = Authority::new("strangers");
    let stranger = strangers.leaf(&["ann"], |_| ());
    let client = |leaf| Client { shows: leaf, ..Client::trusting(&house.ca) };
    assert_eq!(house.ask(&client(Some(&known)), &tenants().bearer(VIEWER)), 200);
    assert_eq!(house.ask(&client(Some(&known)), &tenants()), 401, "a certificate is no token");
    for shows in [None, Some(&stranger)] {
        assert_eq!(house.ask(&client(shows), &tenants().bearer(VIEWER)), 0, "a token is no certificate");
    }
}

#[test]
fn a_new_certificate_is_taken_from_its_file_and_a_bad_one_is_not() {
    let house = House::with(|_| String::new());
    let names = || {
        let stream = Client::trusting(&house.ca).connect(house.rig.admin_api.unwrap(), "admin.test");
        shown(&stream.unwrap())
    };
    assert_eq!(names(), ["admin.test"]);
    house.ca.server(&["admin.test", "renewed.test"]).put(house.files.path(), "admin");
    until("the new certificate is shown", || names() == ["admin.test", "renewed.test"]);
    std::fs::write(house.files.path().join("admin.pem"), "no certificate").unwrap();
    until("the bad file is recorded as refused", || loads(&house.rig).iter().any(|(decision, _)| decision == "deny"));
    assert_eq!(names(), ["admin.test", "renewed.test"]);
}

#[test]
fn nobody_fills_the_listener_and_who_has_no_token_keeps_no_connection() {
    let house = House::with(|_| String::new());
    let client = Client::trusting(&house.ca);
    let to = house.rig.admin_api.unwrap();
    let mut stranger = Connection::on(client.connect(to, "admin.test").unwrap());
    stranger.write(&tenants().bytes());
    assert_eq!(stranger.answer().header("connection"), "close");
    drop(stranger);
    let mut silent: Vec<_> = (0..16).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
    until("one more of this address is closed", || house.ask(&client, &tenants().bearer(VIEWER)) == 0);
    silent.truncate(8);
    until("others come in when some leave", || house.ask(&client, &tenants().bearer(VIEWER)) == 200);
}

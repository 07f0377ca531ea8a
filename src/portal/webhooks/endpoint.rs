//! Which URLs a webhook may have.

use http::{Uri, uri::Scheme};

use crate::config::settings::WebhookSettings;

/// Ports from 1024 on that no web server listens on (the WHATWG's list of bad ports); below it only 80 and 443 are.
const BAD_PORTS: [u16; 17] =
    [1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6697];
const BAD_PORT_LAST: u16 = 10_080;

/// A URL that deliveries may be sent to. What its name resolves to is judged when it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) uri: Uri,
}

/// Why a URL is not taken; in words for the one who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the webhook's URL is not taken: {0}")]
pub struct InvalidUrl(pub &'static str);

impl Endpoint {
    pub fn parse(url: &str, settings: &WebhookSettings) -> Result<Self, InvalidUrl> {
        if url.len() > 2048 {
            return Err(InvalidUrl("it is longer than 2048 bytes"));
        }
        if url.contains('#') {
            return Err(InvalidUrl("it has a fragment, which is never sent"));
        }
        let uri: Uri = url.parse().map_err(|_| InvalidUrl("it is no URL"))?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && settings.allow_http => false,
            Some(scheme) if *scheme == Scheme::HTTP => {
                return Err(InvalidUrl("use https (plain http only with `webhooks.allow_http`)"));
            }
            _ => return Err(InvalidUrl("use https")),
        };
        let authority = uri.authority().ok_or(InvalidUrl("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl("it carries a user name; deliveries are signed instead"));
        }
        if authority.host().is_empty() {
            return Err(InvalidUrl("it names no host"));
        }
        // `http` takes a port that is no number as none at all.
        if authority.port().is_some() != authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':')) {
            return Err(InvalidUrl("its port is no number"));
        }
        match uri.port_u16() {
            None | Some(443) => {}
            Some(80) if !https => {}
            Some(port) if port >= 1024 && port != BAD_PORT_LAST && !BAD_PORTS.contains(&port) => {}
            Some(_) => return Err(InvalidUrl("its port is one of another service: use 443, or one from 1024 on")),
        }
        Ok(Self { uri })
    }

    /// The name or address to connect to, without brackets.
    pub(super) fn host(uri: &Uri) -> Option<&str> {
        let host = uri.host()?;
        Some(host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host))
    }

    pub(super) fn port(uri: &Uri) -> u16 {
        uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::webhooks::sender::tests::settings;

    #[test]
    fn only_https_to_a_plausible_port() {
        for good in [
            "https://hooks.example/in",
            "https://hooks.example:443/in?a=b",
            "https://hooks.example:8443",
            "https://[2606:4700::1]:8443/in",
            "HTTPS://hooks.example/",
        ] {
            assert!(Endpoint::parse(good, &settings(false, false)).is_ok(), "{good}");
        }
        for bad in [
            "http://hooks.example/in",
            "ftp://hooks.example/",
            "hooks.example/in",
            "/in",
            "",
            "https://",
            "https://user:pass@hooks.example/",
            "https://user@hooks.example/",
            "https://hooks.example:22/",
            "https://hooks.example:25/",
            "https://hooks.example:80/",
            "https://hooks.example:0/",
            "https://hooks.example:99999/",
            "https://hooks.example:6667/",
            "https://hooks.example:10080/",
            "https://hooks.example/#part",
            "https://hooks.example/ a",
            "file:///etc/passwd",
        ] {
            assert!(Endpoint::parse(bad, &settings(false, false)).is_err(), "{bad}");
        }
        assert!(Endpoint::parse("http://hooks.example/in", &settings(true, false)).is_ok());
        assert!(Endpoint::parse("http://hooks.example:443/in", &settings(true, false)).is_ok());
    }
}

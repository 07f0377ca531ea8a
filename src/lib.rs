//! linkgate: a policy-engine sidecar and reverse proxy. Partner organisations reach exactly the tenants that they are
//! linked to, through one door that a security team can read, prove and audit.
//!
//! What it promises on the wire is the [`contract`]: comments name its sections.
//!
//! # Life of a request
//!
//! ```text
//! accept -> PROXY header, TLS                        server::{workers, proxy_protocol, handshake}
//!        -> exact framing, limits, request id        server::{connection, guard}, proxy::intake
//!        -> route (method + path -> permission)      proxy::route          no rule: refused
//!        -> identify (token -> user, partner)        proxy::identify, proxy::resolve, proxy::session
//!        -> tenant (which one is meant)              proxy::tenant
//!        -> decide (link gates, then Cedar)          proxy::authorize      => Permit | Denial
//!        -> rate limit                               proxy::quota
//!        -> refused body fields                      proxy::fields
//!        -> decide once more, where a body was read  proxy::confirm
//!        -> audit open (durable as the class asks)   proxy::account
//!        -> forward, watch, cut                      proxy::{forward, outgoing, body, tunnel, watch}
//!        -> audit complete (ledger; drop = aborted)  proxy::account
//!        -> respond (the one place for errors)       proxy::respond
//! ```
//!
//! `proxy::flow` reads like that list; each stage consumes a type and gives the next. What is refused on the way is
//! audited and rate-limited too.
//!
//! A request to the consolidated API leaves this list behind the route and has one of its own (`proxy::consolidated`): the
//! caller's gates, each linked tenant's slice decided by itself, limit, question, record, then `portal` on the service
//! runtime: `fanout` asks (`sources`, by `connector`s), `merge` makes one page, `partial` says what is missing. What was
//! read is asked about once more before it is shown; what is written asks before each thing that it sends
//! (`portal::standing`).
//!
//! For another proxy that carries the request out (Envoy, nginx, Caddy, Traefik) the same stages run up to the record, which
//! is completed at once with `decided`: `server::decision` reads the question and authenticates who asks, `proxy::decision`
//! calls the stages and tells what a service would be sent as changes to what the client sent. A service that vouches for
//! a user (AuthZEN) goes the same way without a token (`proxy::judgement`).
//!
//! # Rooms and floors
//!
//! A file imports only from lower floors or its own room; `tests/layering.rs` holds this table against the sources.
//!
//! | floor | rooms |
//! | --- | --- |
//! | 0 | [`domain`]: ids, permissions, roles, links, gates, errors: no runtime, socket or engine · [`tls`]: certificates and trust from files · [`collector`]: posts to a collector of OpenTelemetry |
//! | 1 | [`identity`] token to caller, signing · [`policy`] Cedar, and proofs over it · [`audit`] journal and chain · [`upstream`] endpoints, health, bounds, pools · [`limit`] quotas · [`connector`] what services say, as typed rows · [`spans`] traces to a collector |
//! | 2 | [`store`] SQLite and Postgres, change feed, audit index · [`config`] file to valid configuration, route table |
//! | 3 | [`portal`]: the consolidated API: fan-out, merge, writes, exports, alerts, webhooks |
//! | 4 | [`proxy`]: the stages · [`ops`]: what operators ask and do, for command line and admin API alike |
//! | 5 | [`server`]: listeners, workers, health, decision endpoints, the admin API |
//! | 6 | [`app`]: composition root, reload, shutdown |
//! | 7 | [`cli`]: one file a command |
//!
//! `sample` (feature `demo`) stands beside the floors: small upstreams that behave like the real services.
//!
//! # Decisions worth knowing
//!
//! - **Links are data, role rules are policies.** Cedar's cost is linear in the number of policies, so a link is the
//!   resource entity of one small set that is the same for everyone.
//! - **The memo holds Cedar's own answers**, keyed by the facts that the policies can read, never a second implementation.
//!   The gates that hand-written policy must not open are also tested natively, to the millisecond, on every call.
//! - **Workers, not a shared pool of threads**: a thread, a current-thread runtime, upstream connections and hot caches
//!   each. Database, journal keeper, key fetching and watchers live on one service runtime.
//! - **Endpoints are chosen by each worker from what all workers know**: a list behind an arc-swap, counts in relaxed atomics
//!   (`upstream::cluster`). The shared endpoints and each tenant's own are clusters apart, with connections, places and
//!   rounds apart: no balancing, failover or name server leads from one to another, and none waits for another. Where there is one endpoint nothing is weighed.
//! - **Sessions are resolved under an epoch** that is read before the rows are, so a change that comes between makes
//!   them old at once, never young. The same rule (`as_of` read in the same snapshot) guards the link cache.
//! - **HTTP/1 is made exact before hyper sees it** (`server::framing`): what two parsers could read differently is
//!   refused, and answered in order with our own error body.
//! - **The record comes before the act.** The journal on local disk is the durable truth; the database's index follows.
//! - **Evidence is a tree behind the journal** (`audit::evidence`): its signed roots find a chain that was written anew as a
//!   whole, and lead a tenant from its record to a signature. It costs the request's way nothing.
//!
//! # Invariants
//!
//! | | promise | held by | tests |
//! | --- | --- | --- | --- |
//! | I1 | no request reaches a tenant without a live link of the caller's own partner | `policy::decide`, `proxy::outgoing` | `policy_prove`, `policy_property`, `gateway::flow` |
//! | I2 | no client value of a protected header reaches an upstream | `proxy::headers`, `proxy::outgoing`, `proxy::body` | `gateway::spoofing`, `gateway::decision` |
//! | I3 | every answer has exactly one record, and no act precedes its record | `proxy::account`, `server::admin`, `audit::journal` | `crash`, `gateway::admin_access` |
//! | I4 | after a revocation nothing is allowed beyond the bound | `store::feed`, `proxy::{worker, watch}`, `proxy::consolidated` | `gateway::links`, `gateway::streams`, `gateway::emergency`, `gateway::admin`, `gateway::tls_clients`, `gateway::decision`, `portal::writes` |
//! | I5 | a decision equals Cedar's for the same facts | `policy::memo` | `policy_property` |
//! | I6 | a bad set or configuration never replaces a good one | `policy::handle`, `app::configuration`, `app::reload` | `policy_bundle`, `gateway::reload` |
//! | I7 | no slice is fetched without its own permit, nor shown under another partner, link version or policy set | `portal::call`, `portal::fanout` | `portal::access` |
//! | I8 | memory is bounded by configuration | caches, `spans::export`, `server::guard`, `upstream::bounds`, `portal::{merge, fanout}` | `gateway::body`, `policy_decide` |

#[doc = include_str!("contract.md")]
pub mod contract {}

pub mod domain;
pub mod tls;

pub mod audit;
pub mod connector;
pub mod identity;
pub mod limit;
pub mod policy;
pub mod spans;
pub mod upstream;

pub mod collector;
pub mod config;
pub mod store;

pub mod portal;

pub mod ops;
pub mod proxy;

pub mod server;

pub mod app;

// Part of no request's way: stands beside the floors and imports from none.
#[cfg(feature = "demo")]
pub mod sample;

pub mod cli;

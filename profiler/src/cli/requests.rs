//! The options that say what a request is and how residue tells routes apart, for every command that
//! follows requests.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    probes::windows::WindowSource,
    requests::{
        head::IdHeader,
        route::{Kept, MAX_ROUTES, Pattern, RouteRules},
        survivors::Grace,
    },
    session::WindowRules,
};

/// The options about requests.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Requests")]
pub struct RequestArgs {
    /// What opens a window: http (a request), fn:SYMBOL (a call of a function of the program's own), or
    /// usdt:PROVIDER:OPEN:CLOSE (from one static probe to another); may be given several times
    #[arg(long = "window", value_name = "SOURCE", default_value = "http")]
    sources: Vec<WindowSource>,
    /// A route, given by its template, such as `/shop/{name}`; residue tries it before the rule of
    /// --routes
    #[arg(long = "route-pattern", value_name = "TEMPLATE")]
    patterns: Vec<Pattern>,
    /// Which segments of a path residue shows as they are, where no pattern matches
    #[arg(long = "routes", value_enum, value_name = "WHICH", default_value_t = Kept::Words)]
    kept: Kept,
    /// Tell at most this many routes apart; all others count as `other`
    #[arg(long, value_name = "N", default_value_t = MAX_ROUTES)]
    max_routes: usize,
    /// The header with the request id; residue reads `traceparent` as well
    #[arg(long, value_name = "HEADER", default_value = "X-Request-ID", value_parser = IdHeader::new)]
    request_id_header: IdHeader,
    /// Count leftover memory as survived after this many further requests of the same worker
    #[arg(long, value_name = "N", default_value_t = Grace::default().requests)]
    grace_requests: NonZeroU32,
    /// Count leftover memory as survived after this long, even if fewer than --grace-requests requests
    /// followed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    grace_time: Duration,
}

impl RequestArgs {
    /// Whether requests make windows.
    pub fn follow_sockets(&self) -> bool {
        self.sources.contains(&WindowSource::Http)
    }

    /// The options in the form that the session takes.
    pub fn rules(&self) -> WindowRules {
        WindowRules {
            sources: self.sources.clone(),
            routes: RouteRules {
                patterns: self.patterns.clone(),
                kept: self.kept,
                max_routes: self.max_routes,
            },
            id_header: self.request_id_header.clone(),
            grace: Grace {
                requests: self.grace_requests,
                time_ns: u64::try_from(self.grace_time.as_nanos()).unwrap_or(u64::MAX),
            },
        }
    }
}

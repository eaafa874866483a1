//! What the user asks a report to show, and why the report may not be able to.

use thiserror::Error;

use crate::profile::{Profile, Tier};
use crate::report::{Format, Measure, Options};
use crate::requests::table::RouteRow;
use crate::wording;

/// How many routes a message names, at most.
const MAX_NAMED: usize = 20;

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// The format of the report.
    pub format: Format,
    /// What to count, if the user said so.
    pub by: Option<Measure>,
    /// Which blocks to show.
    pub tier: Tier,
    /// The route whose requests to show, written as reports write routes.
    pub route: Option<&'a str>,
}

/// Why a report cannot show a selection.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The capture holds no requests.
    #[error(
        "{0} is about requests, and this capture has none: record a process while it serves HTTP \
         requests"
    )]
    NoRequests(String),
    /// The capture holds requests, and none of this name.
    #[error("no request had the route `{route}`; there are:{known}")]
    NoSuchRoute {
        /// The route that the user asked for.
        route: String,
        /// The routes that are there, one on each line.
        known: String,
    },
    /// The user named a path that several routes have.
    #[error("`{path}` is the path of several routes: name one of{routes}")]
    SeveralRoutes {
        /// The path that the user asked for.
        path: String,
        /// The routes that have this path, one on each line.
        routes: String,
    },
    /// The recorder followed no allocations.
    #[error(
        "no allocation was followed (record --rss-only), so there are no stacks: `--format text` shows estimates by \
         route"
    )]
    NotFollowed,
    /// Outstanding and allocated memory is not kept by route.
    #[error("what is {0} is not kept by route: with --route, use --by retained or --by survivors")]
    NotByRoute(&'static str),
    /// JSON holds every route.
    #[error("--format json holds every route: leave out --route")]
    AllRoutes,
    /// Requests hold blocks, and no other tier.
    #[error("requests hold blocks of the allocator only: leave out --tier")]
    BlocksOnly,
    /// The recorder could bind no allocation, so there are only estimates.
    #[error(
        "no allocation could be bound to {0}, so what it left behind has no stacks: `--format text` \
         shows estimates"
    )]
    NotBound(String),
    /// None of the requests has ended.
    #[error("the requests of {0} were all still under way when the recording ended: record longer")]
    UnderWay(String),
    /// The grace of no request is over.
    #[error(
        "nobody can say yet what survived of {0}: that takes ten further requests of the worker, or 30 \
         seconds, if nothing else was asked of `record`. Record longer, or use --by retained"
    )]
    WithinGrace(String),
}

impl Selection<'_> {
    /// Turns the selection into options for a report.
    ///
    /// # Errors
    ///
    /// Fails if the profile does not hold what is selected.
    pub fn options(self, profile: &Profile) -> Result<Options<'_>, Refusal> {
        if profile.rss_only && !matches!(self.format, Format::Json | Format::Text) {
            return Err(Refusal::NotFollowed);
        }
        let by = self.by.unwrap_or(match self.route {
            Some(_) => Measure::Survivors,
            None => Measure::default(),
        });
        let route = self.route.map(|route| find(profile, route)).transpose()?;
        if self.route.is_some() && self.format == Format::Json {
            return Err(Refusal::AllRoutes);
        }
        match by.stage() {
            None if route.is_some() => return Err(Refusal::NotByRoute(by.noun())),
            None => {}
            Some(_) if self.tier != Tier::Blocks => return Err(Refusal::BlocksOnly),
            Some(_) => check(profile, by, route)?,
        }
        Ok(Options {
            by,
            tier: self.tier,
            route: route.map(|row| &row.route),
            by_process: false,
            colour: false,
        })
    }
}

fn rows(profile: &Profile) -> &[RouteRow] {
    let requests = profile.requests.as_ref();
    requests.map_or(&[], |requests| &requests.table.routes)
}

fn find<'a>(profile: &'a Profile, name: &str) -> Result<&'a RouteRow, Refusal> {
    let rows = rows(profile);
    if rows.is_empty() {
        return Err(Refusal::NoRequests("--route".to_owned()));
    }
    if let Some(row) = rows.iter().find(|row| row.route.to_string() == name) {
        return Ok(row);
    }
    let with_path = rows.iter().filter(|row| row.route.template() == name);
    match with_path.collect::<Vec<_>>()[..] {
        [row] => Ok(row),
        [] => Err(Refusal::NoSuchRoute {
            route: wording::printable(name),
            known: named(&rows.iter().collect::<Vec<_>>()),
        }),
        ref several => Err(Refusal::SeveralRoutes {
            path: wording::printable(name),
            routes: named(several),
        }),
    }
}

/// Lists routes, one on each line, as far as a message has room for them.
fn named(rows: &[&RouteRow]) -> String {
    let shown = rows.iter().take(MAX_NAMED);
    let line = |row: &&RouteRow| format!("\n  {}", wording::printable(&row.route.to_string()));
    let mut lines: String = shown.map(line).collect();
    if let Some(more @ 1..) = rows.len().checked_sub(MAX_NAMED) {
        let more = wording::counted(more as u64, "further route");
        lines += &format!("\n  and {more} (--format json has all)");
    }
    lines
}

/// Checks that the profile knows anything about what requests left behind.
fn check(profile: &Profile, by: Measure, route: Option<&RouteRow>) -> Result<(), Refusal> {
    let rows = rows(profile);
    if rows.is_empty() {
        return Err(Refusal::NoRequests(format!("--by {}", by.noun())));
    }
    let name = || route.map_or("any request".to_owned(), |row| row.route.to_string());
    let any = |is_known: fn(&RouteRow) -> bool| match route {
        Some(row) => is_known(row),
        None => rows.iter().any(is_known),
    };
    if !any(|row| row.retained_bytes_per_request.is_some()) {
        let is_bound = |row: &RouteRow| {
            row.confidences.exact + row.confidences.lineage + row.confidences.single > 0
        };
        return Err(match any(is_bound) {
            true => Refusal::UnderWay(name()),
            false => Refusal::NotBound(name()),
        });
    }
    if by == Measure::Survivors && !any(|row| row.survivor_bytes_per_request.is_some()) {
        return Err(Refusal::WithinGrace(name()));
    }
    Ok(())
}

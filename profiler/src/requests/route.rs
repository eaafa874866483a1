//! Routes: what requests of one kind have in common, such as `GET /users/{id}`.
//!
//! A server has a few dozen routes, but a scanner can make up any number. So a table holds a
//! bounded number of routes, in the order in which they came, and one route `other` for the rest.

mod pattern;
mod repeated;
mod segment;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use pattern::{Pattern, PatternError};

use super::head::{Method, Target};
use crate::printable::printable;
use repeated::Repeated;

/// How many distinct routes to tell apart by default: more than a large application has, and some
/// 100 kB of names.
pub const MAX_ROUTES: usize = 1000;

/// Stands for the part of a path that the kernel side did not ship.
const CUT: char = '…';

/// A method and the template of paths. A route is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    method: Option<Method>,
    template: Template,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Template {
    Known(Arc<str>),
    Other,
}

impl Route {
    /// Makes the route of a window that is no HTTP request, such as the function of a job. The name
    /// is made printable.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::stored(None, Some(name))
    }

    /// Makes a route from what a capture holds. A request that had no place in the table of routes
    /// has no template.
    pub(crate) fn stored(method: Option<Method>, template: Option<&str>) -> Self {
        let text = template.map(printable);
        Self {
            method,
            template: text.map_or(Template::Other, |text| Template::Known(text.into())),
        }
    }

    /// Returns what [`Route::stored`] takes to make the same route.
    pub(crate) fn to_stored(&self) -> (Option<Method>, Option<&str>) {
        let template = match &self.template {
            Template::Known(template) => Some(&**template),
            Template::Other => None,
        };
        (self.method, template)
    }

    /// The route of all requests that came when the table of routes was full.
    pub const OTHER: Self = Self {
        method: None,
        template: Template::Other,
    };

    /// The method of the request. `None` if the window is no HTTP request.
    #[must_use]
    pub const fn method(&self) -> Option<Method> {
        self.method
    }

    /// Returns the template, such as `/users/{id}`, or `other`.
    #[must_use]
    pub fn template(&self) -> &str {
        match &self.template {
            Template::Known(template) => template,
            Template::Other => "other",
        }
    }

    /// Returns the route of the row that this route counts for. All routes that are `other` share
    /// one row, whatever their method.
    #[must_use]
    pub fn row(&self) -> Self {
        match self.template {
            Template::Known(_) => self.clone(),
            Template::Other => Self::OTHER,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = self.method {
            write!(f, "{method} ")?;
        }
        f.write_str(self.template())
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which segments of a path a route shows. A route masks all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kept {
    /// Words of lower-case letters, versions such as `v2`, and types of files
    #[default]
    Words,
    /// Of these, only what a hundred requests had at the same place; until then, a route masks it
    Strict,
}

/// How paths become routes.
#[derive(Clone, Debug)]
pub struct RouteRules {
    /// Patterns that are tried first, in this order.
    pub patterns: Vec<Pattern>,
    /// What a route shows where no pattern matches.
    pub kept: Kept,
    /// How many distinct routes to tell apart.
    pub max_routes: usize,
}

impl Default for RouteRules {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            kept: Kept::default(),
            max_routes: MAX_ROUTES,
        }
    }
}

/// All routes that were seen.
#[derive(Debug, Default)]
pub struct Routes {
    rules: RouteRules,
    known: HashSet<Route>,
    repeated: Repeated,
    /// The number of requests that are `other`.
    overflowed: u64,
}

impl Routes {
    /// Makes a table without any routes.
    #[must_use]
    pub fn new(rules: RouteRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// Finds the route of a request. The route is `other` if it is new and the table is full.
    pub fn route(&mut self, method: Method, target: &Target) -> Route {
        let template = self.template(target);
        let route = Route {
            method: Some(method),
            template: Template::Known(template.into()),
        };
        if let Some(known) = self.known.get(&route) {
            return known.clone();
        }
        if self.known.len() >= self.rules.max_routes {
            self.overflowed = self.overflowed.saturating_add(1);
            return Route {
                template: Template::Other,
                ..route
            };
        }
        self.known.insert(route.clone());
        route
    }

    /// Returns the number of requests that are `other` because the table was full.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    fn template(&mut self, target: &Target) -> String {
        let (path, cut) = match target {
            Target::Path { text, cut } => (text, *cut),
            Target::Asterisk => return "*".to_owned(),
            Target::Authority => return "{authority}".to_owned(),
            Target::Malformed => return "{malformed}".to_owned(),
        };
        // A pattern matches a whole path, so it cannot match a path that is cut.
        let mut patterns = self.rules.patterns.iter().filter(|_| !cut);
        match patterns.find(|pattern| pattern.matches(path)) {
            Some(pattern) => pattern.to_string(),
            None => {
                let (kept, repeated) = (self.rules.kept, &mut self.repeated);
                template(path, cut, |place, segment| {
                    kept == Kept::Words || repeated.count(place, segment)
                })
            }
        }
    }
}

/// Makes a template from each segment by itself, if a route may show the segment at its place. The
/// last segment of a cut path is not whole, so it is left out.
fn template(path: &str, cut: bool, mut may_show: impl FnMut(usize, &str) -> bool) -> String {
    let (path, cut_end) = match (cut, path.rfind('/')) {
        (true, slash) => (&path[..slash.map_or(0, |at| at + 1)], Some(CUT)),
        (false, _) => (path, None),
    };
    let generalized = path.split('/').map(segment::generalize).enumerate();
    let shown = generalized.map(|(place, segment)| {
        let is_masked = segment.is_empty() || segment.starts_with('{');
        match is_masked || may_show(place, &segment) {
            true => segment,
            false => segment::MASK.into(),
        }
    });
    let segments: Vec<_> = shown.collect();
    let mut template = segments.join("/");
    template.extend(cut_end);
    template
}

#[cfg(test)]
mod tests;

//! Routes: what requests of one kind have in common, `GET /users/{id}`.
//!
//! A server has a few dozen of them and a scanner can make up any number, so that a table holds a
//! bounded number of routes, in the order in which they came, and one `other` for the rest.

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

/// Distinct routes that are told apart unless told otherwise: more than a large application has, and
/// some 100 kB of names.
pub const MAX_ROUTES: usize = 1000;

/// What stands for the part of a path that was not shipped.
const CUT: char = '…';

/// A method and the template of its paths. Cheap to clone.
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
    /// A window that is no HTTP request: a job's function, say. It is shown by this name, made printable.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::stored(None, Some(name))
    }

    /// A route as a capture holds it: no template is what had no place in the table of routes.
    pub(crate) fn stored(method: Option<Method>, template: Option<&str>) -> Self {
        let text = template.map(printable);
        Self {
            method,
            template: text.map_or(Template::Other, |text| Template::Known(text.into())),
        }
    }

    /// What [`Route::stored`] makes the same route of.
    pub(crate) fn to_stored(&self) -> (Option<Method>, Option<&str>) {
        let template = match &self.template {
            Template::Known(template) => Some(&**template),
            Template::Other => None,
        };
        (self.method, template)
    }

    /// What all requests count for that came when the table of routes was full.
    pub const OTHER: Self = Self {
        method: None,
        template: Template::Other,
    };

    /// `None` for what is no HTTP request.
    #[must_use]
    pub const fn method(&self) -> Option<Method> {
        self.method
    }

    /// `/users/{id}`, or `other`.
    #[must_use]
    pub fn template(&self) -> &str {
        match &self.template {
            Template::Known(template) => template,
            Template::Other => "other",
        }
    }

    /// The row that the route counts for: all that are `other` are one, whatever their method.
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

/// Which segments of a path a route shows. All others are masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kept {
    /// Words of lower-case letters, versions such as `v2`, and types of files
    #[default]
    Words,
    /// Of those, what has been in a hundred requests, at the same place; until then it is masked
    Strict,
}

/// How paths become routes.
#[derive(Clone, Debug)]
pub struct RouteRules {
    /// Tried first, in this order.
    pub patterns: Vec<Pattern>,
    /// What is shown where no pattern matches.
    pub kept: Kept,
    /// Distinct routes that are told apart.
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
    /// Requests that are `other`.
    overflowed: u64,
}

impl Routes {
    /// A table without any route yet.
    #[must_use]
    pub fn new(rules: RouteRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// The route of a request; `other` if it is new and the table is full.
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

    /// Requests that were called `other` because the table was full.
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
        // Whether a pattern matches all of a path cannot be said of a part of it.
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

/// Each segment by itself, if it may be shown at its place. Of a path that is cut, the last segment is not whole.
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

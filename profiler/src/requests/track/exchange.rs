//! A request and its response.

use std::fmt;

use crate::requests::head::{Head, HeadParser, IdHeader, Method, ResponseEnd};
use crate::requests::route::{Route, Routes};

/// A request that could not be read because it arrived behind another one.
const HIDDEN: &str = "{pipelined}";
/// A request whose first line is none that a server could answer with anything but an error.
const MALFORMED: &str = "{malformed}";

/// See the module documentation.
#[derive(Default)]
pub struct Exchange {
    /// `None` if it could not be read.
    request: Request,
    response: Option<HeadParser>,
}

#[derive(Default)]
enum Request {
    #[default]
    Nothing,
    Read {
        parser: HeadParser,
        /// More arrived than was sent to us.
        is_cut: bool,
    },
    Hidden,
    /// It is none: a call of a function, which is its own answer.
    Call(Route),
}

impl fmt::Debug for Exchange {
    /// Nothing of what the heads say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// One whose request could not be read.
    pub fn hidden() -> Self {
        Self {
            request: Request::Hidden,
            response: None,
        }
    }

    /// What is no request, and is called so.
    pub fn call(name: Route) -> Self {
        Self {
            request: Request::Call(name),
            response: None,
        }
    }

    /// Takes a fragment of the request, and returns what lies behind its head.
    pub fn push_request<'a>(
        &mut self,
        fragment: &'a [u8],
        is_cut: bool,
        id: &IdHeader,
    ) -> &'a [u8] {
        if matches!(self.request, Request::Nothing) {
            self.request = Request::Read {
                parser: HeadParser::default(),
                is_cut: false,
            };
        }
        match &mut self.request {
            Request::Read {
                parser,
                is_cut: was_cut,
            } => {
                *was_cut |= is_cut;
                parser.push(fragment, id)
            }
            _ => &[],
        }
    }

    /// Takes a fragment of the response.
    pub fn push_response(&mut self, fragment: &[u8], id: &IdHeader) {
        self.response.get_or_insert_default().push(fragment, id);
    }

    /// Whether a response has begun.
    pub const fn was_answered(&self) -> bool {
        self.response.is_some() || matches!(self.request, Request::Call(_))
    }

    /// Whether what was sent so far only announces a response.
    pub fn is_interim(&self) -> bool {
        self.response.as_ref().is_some_and(HeadParser::is_interim)
    }

    /// The response is still to come.
    pub fn forget_interim(&mut self) {
        self.response = None;
    }

    /// How the response's end is told, if that is known.
    pub fn response_end(&self) -> Option<ResponseEnd> {
        self.response.as_ref()?.response_end()
    }

    /// Whether its first line is that of a request.
    pub fn is_request(&self) -> bool {
        self.method().is_some()
    }

    /// Whether the response has no body, whatever its head says.
    pub fn is_head(&self) -> bool {
        self.method() == Some(Method::Head)
    }

    /// Whether what follows the request's head is none of its body.
    pub fn has_no_body(&self) -> bool {
        let has_none = |method| matches!(method, Method::Get | Method::Head | Method::Delete);
        self.method().is_some_and(has_none)
    }

    /// Whether another request may have arrived with this one, without being sent to us.
    pub fn may_hide_another(&self) -> bool {
        match &self.request {
            Request::Read { is_cut, .. } => *is_cut && self.has_no_body(),
            Request::Hidden => true,
            Request::Nothing | Request::Call(_) => false,
        }
    }

    fn method(&self) -> Option<Method> {
        match &self.request {
            Request::Read { parser, .. } => parser.method(),
            _ => None,
        }
    }

    /// Route, status and request id; `None` if neither side has said anything that HTTP would. Other
    /// protocols have commands such as `GET key`.
    pub fn finish(self, routes: &mut Routes) -> Option<(Route, Option<u16>, Option<String>)> {
        let response = match self.response.map(HeadParser::finish) {
            Some(Head::Response(response)) => Some(response),
            _ => None,
        };
        let (route, mut id) = match self.request {
            Request::Hidden => (Route::named(HIDDEN), None),
            Request::Call(name) => (name, None),
            Request::Read { parser, .. } => match parser.finish() {
                Head::Request(request) => {
                    let id = request.fields.id().map(str::to_owned);
                    (routes.route(request.method, &request.target), id)
                }
                _ if response.is_none() => return None,
                _ => (Route::named(MALFORMED), None),
            },
            Request::Nothing => return None,
        };
        if id.is_none() {
            let fields = response.as_ref().map(|response| &response.fields);
            id = fields.and_then(|it| it.id()).map(str::to_owned);
        }
        Some((route, response.map(|response| response.status), id))
    }
}

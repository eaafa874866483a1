//! The sink that writes one line for each request to standard output, and the table by route to standard error.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use super::{Keeps, Sink, SinkError, Started, Tally, stream::Stream};
use crate::{
    capture::Interval,
    ids::ProcessNumber,
    messages::say,
    printable::{self, Notation},
    report::{
        request_line::{JsonLine, LineRules, TextLine},
        routes_table,
    },
    requests::{
        record::{Unbound, WindowRecord},
        table::TableBuilder,
    },
    wording::wrap,
};

/// Columns that a line of the table's heading may take.
const COLUMNS: usize = 80;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object in each line, for programs.
    Json,
}

/// Which requests have lines, and how these are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineStyle {
    /// How a line is written.
    pub form: Form,
    /// Which requests have a line, and which of them are marked.
    pub rules: LineRules,
    /// How often the table by route is shown; none if only at the end.
    pub table_every: Option<Duration>,
}

impl From<Form> for LineStyle {
    fn from(form: Form) -> Self {
        Self {
            form,
            ..Self::default()
        }
    }
}

/// The lines of requests, and the table by route.
pub struct Lines {
    out: Stream,
    style: LineStyle,
    table: TableBuilder,
    /// When the table was shown last, or the start.
    table_shown: Instant,
    /// Requests since the table was shown.
    untold: usize,
    /// By process, what belongs to no single request: the background, and what is ambiguous.
    unbound: HashMap<ProcessNumber, [Unbound; 2]>,
    follows_allocations: bool,
    /// Events that could not be recorded.
    lost: u64,
}

impl Lines {
    /// No request is over yet. Starts a thread.
    #[must_use]
    pub fn new(style: LineStyle, allocations: bool) -> Self {
        Self {
            out: Stream::to(io::stdout()),
            style,
            table: TableBuilder::default(),
            table_shown: Instant::now(),
            untold: 0,
            unbound: HashMap::new(),
            follows_allocations: allocations,
            lost: 0,
        }
    }

    /// Shows the table so far. Whoever does not read the table has the lines.
    fn show_table_when_due(&mut self) {
        let now = Instant::now();
        let since = now.duration_since(self.table_shown);
        if self.style.table_every.is_none_or(|every| since < every) {
            return;
        }
        self.table_shown = now;
        if std::mem::take(&mut self.untold) > 0 {
            let _ = self.write_table("REQUESTS BY ROUTE, so far", None);
        }
    }

    /// What belongs to no single request of all processes, unless nobody counts that.
    fn unbound(&self) -> Option<[Unbound; 2]> {
        self.follows_allocations.then(|| {
            let [mut background, mut ambiguous] = [Unbound::default(); 2];
            for of_process in self.unbound.values() {
                background.add(of_process[0]);
                ambiguous.add(of_process[1]);
            }
            [background, ambiguous]
        })
    }

    fn write_table(&self, title: &str, unbound: Option<[Unbound; 2]>) -> io::Result<()> {
        let [background, ambiguous] = unbound.map_or([None; 2], |both| both.map(Some));
        let table = self.table.build(background, ambiguous);
        if table.routes.is_empty() {
            say("no request was seen");
            return Ok(());
        }
        // In one piece, or the lines of requests would come in between.
        let mut text = Vec::new();
        writeln!(text, "\n{title}")?;
        let scope = match self.follows_allocations {
            true => routes_table::SCOPE,
            false => routes_table::NOTHING_FOLLOWED,
        };
        for line in wrap(scope, COLUMNS) {
            writeln!(text, "{line}")?;
        }
        routes_table::write(&table, &mut text)?;
        say(String::from_utf8_lossy(&text).trim_end());
        Ok(())
    }

    fn line(&self, record: &WindowRecord) -> io::Result<Vec<u8>> {
        let notation = match self.style.form {
            Form::Json => Notation::Json,
            Form::Text => Notation::Text,
        };
        let mut line = Vec::new();
        let mut out = printable::Sink::new(&mut line, notation);
        let known = self.table.known(&record.route);
        match self.style.form {
            Form::Json => {
                serde_json::to_writer(&mut out, &JsonLine::new(record, &self.style.rules, known))?;
                writeln!(out)?;
            }
            Form::Text => writeln!(out, "{}", TextLine::new(record, &self.style.rules, known))?,
        }
        out.flush()?;
        drop(out);
        Ok(line)
    }
}

impl Sink for Lines {
    fn name(&self) -> String {
        "standard output".to_owned()
    }

    fn keeps(&self) -> Keeps {
        Keeps::Requests
    }

    fn started(&mut self, _: &Started) -> Result<(), SinkError> {
        self.table_shown = Instant::now();
        Ok(())
    }

    fn requests(&mut self, requests: &[WindowRecord]) -> Result<(), SinkError> {
        self.untold += requests.len();
        requests.iter().for_each(|record| self.table.add(record));
        for record in requests
            .iter()
            .filter(|record| self.style.rules.shows(record))
        {
            // Writing into memory does not fail.
            let line = self.line(record).unwrap_or_default();
            self.out.write(line);
        }
        self.out.check().map_err(SinkError::Output)
    }

    fn interval(&mut self, interval: &Interval, tally: &Tally) -> Result<(), SinkError> {
        for survived in &interval.survivors {
            self.table.add_survivors(&survived.route, survived.amount);
        }
        for unbound in &interval.unbound {
            let both = [unbound.background, unbound.ambiguous];
            self.unbound.insert(unbound.process, both);
        }
        self.lost = tally.lost;
        self.show_table_when_due();
        self.out.check().map_err(SinkError::Output)
    }

    /// Shows the table by route.
    fn finish(&mut self, _: u64) -> Result<(), SinkError> {
        // Whoever does not read the table has the lines.
        let _ = self.write_table("REQUESTS BY ROUTE", self.unbound());
        if self.lost > 0 {
            say(format!(
                "LOST {} events: figures may be too low; the report of a capture tells which",
                self.lost
            ));
        }
        match self.out.finish() {
            Ok(0) => Ok(()),
            Ok(left_out) => {
                say(format!(
                    "{left_out} lines were left out: standard output was not read as fast as requests came"
                ));
                Ok(())
            }
            Err(error) => Err(SinkError::Output(error)),
        }
    }
}

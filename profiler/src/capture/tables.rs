//! Takes rows out of a capture's tables, no more of them than its bytes can hold.

use std::cell::Cell;

use rusqlite::{Connection, Params, Row, Statement};

use crate::capture::image::Image;
use crate::capture::load::contradiction;

/// The tables of a capture. A reader reads each of them once.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    db: &'a Connection,
    /// Bytes of the capture that no row has taken yet. A hostile capture may show the same row again and
    /// again; a true capture stores each row, with at least a byte a column.
    left: Cell<u64>,
}

impl<'a> Tables<'a> {
    /// The tables of `image`, before any row is read.
    pub(super) fn of(image: &'a Image) -> Self {
        Self {
            db: image.db(),
            left: Cell::new(image.length()),
        }
    }

    /// A query for [`next`](Self::next).
    pub(super) fn prepare(&self, sql: &str) -> rusqlite::Result<Statement<'a>> {
        self.db.prepare(sql)
    }

    /// All rows that a query finds.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, |row| {
            found.push(read(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls a function with every row that a query finds.
    pub(super) fn each(
        &self,
        sql: &str,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.spend(row)?;
            read(row)?;
        }
        Ok(())
    }

    /// The first row that a query finds.
    pub(super) fn first<T>(
        &self,
        statement: &mut Statement<'_>,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut rows = statement.query(parameters)?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        self.spend(row)?;
        read(row).map(Some)
    }

    fn spend(&self, row: &Row<'_>) -> rusqlite::Result<()> {
        let mut bytes = 0;
        for column in 0..row.as_ref().column_count() {
            let value = row.get_ref(column)?;
            bytes += 1 + value
                .as_bytes_or_null()
                .ok()
                .flatten()
                .map_or(0, <[u8]>::len) as u64;
        }
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(contradiction(
                0,
                "its rows are more than its bytes".to_owned(),
            )),
        }
    }
}

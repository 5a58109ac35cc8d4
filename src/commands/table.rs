//! A plain table: columns as wide as their widest cell, two spaces between.

use std::io::{self, Write};

use crate::text::{LINE, shown};

/// Rows of text below a heading.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(head: [&str; N]) -> Self {
        Table { rows: vec![head.map(str::to_owned)] }
    }

    /// Adds a row. Characters that a terminal would interpret are escaped.
    pub fn row(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(|cell| shown(cell, LINE).to_string()));
    }

    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Its lines, the heading first.
    pub fn lines(&self) -> Vec<String> {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &[String; N]| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
            cells.collect::<String>().trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

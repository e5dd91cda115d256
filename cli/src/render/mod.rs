//! Shows results: to people as tables, bars and words, to programs as JSON and CSV.
//!
//! Everything is written to a [`std::io::Write`]; nothing here prints by itself but the progress of
//! long work, on standard error. What an output can show is a [`Terminal`]; whether in colours, [`Paint`].

mod aligned;
mod cell;
mod histogram;
mod number;
mod paint;
mod plain_progress;
mod progress;
mod table;
mod terminal;
mod time_bins;

pub use cell::Cell;
pub use histogram::write_histogram;
pub use number::{bytes, counted, duration, grouped, rate};
pub use paint::{Colour, Paint};
pub use progress::{Progress, ProgressBars};
pub use table::{Column, Output, TableWriter};
pub use terminal::Terminal;
pub use time_bins::TimeBins;

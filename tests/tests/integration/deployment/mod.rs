//! What operators install, checked as far as it can be without a container engine: by the tools of those
//! who will read the files.

mod alerts;
mod compose;
mod dashboard;
mod image;
mod live;
mod promql;
mod systemd_units;

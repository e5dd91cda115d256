//! What operators install, checked as far as it can be without a container engine: by the tools of those
//! who will read the files.

mod compose;
mod image;
mod systemd_units;

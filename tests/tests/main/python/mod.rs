//! Python's frames, against what each Python that is installed says about itself.

mod sites;
mod stale;

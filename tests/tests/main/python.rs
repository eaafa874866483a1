//! Python's frames, against what each Python that is installed says about itself.

mod hostile;
mod sites;
mod stale;

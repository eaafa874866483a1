//! Python's frames, against what each Python that is installed says about itself.

mod hostile;
mod packages;
mod sites;
mod stale;

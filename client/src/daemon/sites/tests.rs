mod carriers;
mod configs;
mod draining;
mod fixture;
mod invariants;
mod search;
mod standby;

//! The flows of one device, in queues by what they are worth.

use super::{Slot, flow::Worth};

/// The ends of three queues; the flows themselves say who is next to them.
#[derive(Debug, Default)]
pub(super) struct Queues {
    finished: Ends,
    opening: Ends,
    open: Ends,
    len: usize,
}

#[derive(Debug, Default)]
struct Ends {
    first: Option<Slot>,
    last: Option<Slot>,
}

impl Queues {
    /// How many flows are in all of them.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn first(&self, worth: Worth) -> Option<Slot> {
        self.ends(worth).first
    }

    pub(super) const fn last(&self, worth: Worth) -> Option<Slot> {
        self.ends(worth).last
    }

    /// Puts a flow at the end of a queue, behind the one that is returned.
    pub(super) const fn push_back(&mut self, worth: Worth, slot: Slot) -> Option<Slot> {
        self.len += 1;
        let ends = self.ends_mut(worth);
        let previous = ends.last.replace(slot);
        if previous.is_none() {
            ends.first = Some(slot);
        }
        previous
    }

    /// Takes a flow from between its neighbours.
    pub(super) const fn unlink(
        &mut self,
        worth: Worth,
        previous: Option<Slot>,
        next: Option<Slot>,
    ) {
        self.len -= 1;
        let ends = self.ends_mut(worth);
        if previous.is_none() {
            ends.first = next;
        }
        if next.is_none() {
            ends.last = previous;
        }
    }

    const fn ends(&self, worth: Worth) -> &Ends {
        match worth {
            Worth::Finished => &self.finished,
            Worth::Opening => &self.opening,
            Worth::Open => &self.open,
        }
    }

    const fn ends_mut(&mut self, worth: Worth) -> &mut Ends {
        match worth {
            Worth::Finished => &mut self.finished,
            Worth::Opening => &mut self.opening,
            Worth::Open => &mut self.open,
        }
    }
}

//! Sets of policies, by their places in the row of all.

/// Places in a row.
///
/// INVARIANT: a list is sorted and has no place twice; bits cover the whole row.
#[derive(Debug, Clone)]
pub(crate) enum Places {
    /// Few.
    Listed(Vec<u32>),
    /// So many that bits take no more memory and are compared 64 at a time.
    Bits(Vec<u64>),
}

/// A listed place takes as much memory as so many bits.
const BITS_PER_LISTED: usize = 32;
const WORD: u32 = u64::BITS;

impl Places {
    /// Places that are sorted, in a row this long.
    pub(crate) fn from_sorted(listed: Vec<u32>, row_len: usize) -> Self {
        if listed.len() <= row_len / BITS_PER_LISTED {
            return Self::Listed(listed);
        }
        let mut bits = no_bits(row_len);
        set(&mut bits, &listed);
        Self::Bits(bits)
    }

    /// What is in any of `sets`, which are all of a row this long.
    pub(crate) fn union(sets: &[&Self], row_len: usize) -> Self {
        let listed_len: Option<usize> = sets
            .iter()
            .map(|set| match set {
                Self::Listed(listed) => Some(listed.len()),
                Self::Bits(_) => None,
            })
            .sum();
        if listed_len.is_some_and(|len| len <= row_len / BITS_PER_LISTED) {
            let mut listed = Vec::with_capacity(listed_len.unwrap_or_default());
            for set in sets {
                set.for_each(|place| listed.push(place));
            }
            listed.sort_unstable();
            listed.dedup();
            return Self::Listed(listed);
        }
        let mut bits = no_bits(row_len);
        for set_of_some in sets {
            match set_of_some {
                Self::Listed(listed) => set(&mut bits, listed),
                Self::Bits(more) => {
                    bits.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
                }
            }
        }
        Self::Bits(bits)
    }

    /// Visits every place, in order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u32)) {
        match self {
            Self::Listed(listed) => listed.iter().copied().for_each(visit),
            Self::Bits(bits) => {
                for (index, word) in (0..).zip(bits) {
                    visit_word(index, *word, &mut visit);
                }
            }
        }
    }

    /// Visits every place that is in both sets, in order.
    pub(crate) fn for_each_common(&self, other: &Self, mut visit: impl FnMut(u32)) {
        match (self, other) {
            (Self::Bits(these), Self::Bits(those)) => {
                for (index, (these, those)) in (0..).zip(these.iter().zip(those)) {
                    visit_word(index, these & those, &mut visit);
                }
            }
            (Self::Listed(listed), Self::Bits(bits)) | (Self::Bits(bits), Self::Listed(listed)) => {
                listed.iter().copied().filter(|place| has_bit(bits, *place)).for_each(visit);
            }
            (Self::Listed(these), Self::Listed(those)) => {
                let (few, many) =
                    if these.len() <= those.len() { (these, those) } else { (those, these) };
                few.iter()
                    .copied()
                    .filter(|place| many.binary_search(place).is_ok())
                    .for_each(visit);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let mut len = 0;
        self.for_each(|_place| len += 1);
        len
    }
}

fn no_bits(row_len: usize) -> Vec<u64> {
    vec![0; row_len.div_ceil(usize::try_from(WORD).unwrap_or(usize::MAX))]
}

fn set(bits: &mut [u64], listed: &[u32]) {
    for place in listed {
        if let Some(word) = usize::try_from(place / WORD).ok().and_then(|at| bits.get_mut(at)) {
            *word |= 1 << (place % WORD);
        }
    }
}

fn has_bit(bits: &[u64], place: u32) -> bool {
    let word = usize::try_from(place / WORD).ok().and_then(|at| bits.get(at));
    word.is_some_and(|word| word >> (place % WORD) & 1 == 1)
}

fn visit_word(index: u32, mut word: u64, visit: &mut impl FnMut(u32)) {
    while word != 0 {
        visit(index * WORD + word.trailing_zeros());
        word &= word - 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    const ROW_LEN: usize = 1000;

    fn places(set: &BTreeSet<u32>) -> Places {
        Places::from_sorted(set.iter().copied().collect(), ROW_LEN)
    }

    fn visited(visit: impl FnOnce(&mut dyn FnMut(u32))) -> Vec<u32> {
        let mut visited = Vec::new();
        visit(&mut |place| visited.push(place));
        visited
    }

    proptest! {
        #[test]
        fn sets_of_the_standard_library_agree(
            few in btree_set(0..1000_u32, 0..30),
            fewer in btree_set(0..1000_u32, 0..10),
            many in btree_set(0..1000_u32, 0..400),
        ) {
            for (a, b) in [(&few, &fewer), (&few, &many), (&many, &few), (&many, &many)] {
                let (of_a, of_b) = (places(a), places(b));
                let common: Vec<u32> = a.intersection(b).copied().collect();
                prop_assert_eq!(visited(|visit| of_a.for_each_common(&of_b, visit)), common);
                let either: Vec<u32> = a.union(b).copied().collect();
                let union = Places::union(&[&of_a, &of_b], ROW_LEN);
                prop_assert_eq!(visited(|visit| union.for_each(visit)), either);
            }
        }
    }
}

//! The order in which the rows of a batch go into COPY: session by session, and in each by track.
//!
//! The B-tree over both has them together, too. Rows as they arrive, of all cameras and of everybody in each
//! frame, have Postgres look for another of its pages with nearly every row; in this order it stays where it
//! is for most. All rows of a batch are stored at once, so that nobody sees which was first; but what the BRIN
//! knows of the time of a few pages is the time of the batch.
//!
//! A batch has thousands of rows of some hundred tracks, so that the tracks are sorted and the rows counted.

use std::{collections::HashMap, ops::Range};

/// The number of a session within the batch; whether the rows have no track, since Postgres has NULL last;
/// the track.
type Group = (u32, bool, i64);

/// Groups that are found without hashing: more than there are tracks in an entry, mostly.
const N_RECENT: usize = 64;

/// Where the rows of a batch lie in its COPY data, and their order.
#[derive(Debug)]
pub(crate) struct RowOrder {
    /// The first byte of each row.
    starts: Vec<usize>,
    /// The number of each row's group.
    groups: Vec<u32>,
    /// Groups by their numbers.
    known: Vec<Group>,
    numbers: HashMap<Group, u32>,
    /// Groups by the last bits of their tracks, with their numbers.
    recent: [Option<(Group, u32)>; N_RECENT],
    /// Rows by their place in the order.
    rows: Vec<u32>,
    /// How many rows and groups are there for good.
    kept: (usize, usize),
}

impl Default for RowOrder {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            groups: Vec::new(),
            known: Vec::new(),
            numbers: HashMap::new(),
            recent: [None; N_RECENT],
            rows: Vec::new(),
            kept: (0, 0),
        }
    }
}

impl RowOrder {
    /// Adds a row, whose COPY data begins at `start` and ends where that of the next one does.
    pub(crate) fn push(&mut self, session: u32, track_id: Option<i64>, start: usize) {
        let group = (session, track_id.is_none(), track_id.unwrap_or_default());
        let number = self.number(group);
        self.groups.push(number);
        self.starts.push(start);
    }

    fn number(&mut self, group: Group) -> u32 {
        let slot = usize::from(group.2.to_le_bytes()[0]) % N_RECENT;
        match self.recent[slot] {
            Some((recent, number)) if recent == group => number,
            _ => {
                let known = &mut self.known;
                let number = *self.numbers.entry(group).or_insert_with(|| {
                    known.push(group);
                    small(known.len() - 1)
                });
                self.recent[slot] = Some((group, number));
                number
            }
        }
    }

    /// Keeps all rows so far, whatever is given up later.
    pub(crate) fn keep(&mut self) {
        self.kept = (self.groups.len(), self.known.len());
    }

    /// Gives up the rows since, and the groups that came with them.
    pub(crate) fn give_up(&mut self) {
        let (n_rows, n_groups) = self.kept;
        self.groups.truncate(n_rows);
        self.starts.truncate(n_rows);
        for group in self.known.drain(n_groups..) {
            self.numbers.remove(&group);
        }
        self.recent = [None; N_RECENT];
    }

    pub(crate) fn sort(&mut self) {
        let mut in_order: Vec<u32> = (0..small(self.known.len())).collect();
        in_order.sort_unstable_by_key(|&number| self.known[number as usize]);
        // Of each group how many rows there are, then where its next row goes.
        let mut places = vec![0; self.known.len()];
        for &number in &self.groups {
            places[number as usize] += 1;
        }
        let mut end = 0;
        for number in in_order {
            let n_rows = std::mem::replace(&mut places[number as usize], end);
            end += n_rows;
        }
        self.rows.resize(self.groups.len(), 0);
        for (row, &number) in self.groups.iter().enumerate() {
            let place = &mut places[number as usize];
            self.rows[*place] = small(row);
            *place += 1;
        }
    }

    /// Forgets the rows, not the memory.
    pub(crate) fn clear(&mut self) {
        self.starts.clear();
        self.groups.clear();
        self.known.clear();
        self.numbers.clear();
        self.recent = [None; N_RECENT];
        self.rows.clear();
        self.kept = (0, 0);
    }

    /// Bytes there is room for, roughly.
    pub(crate) fn capacity_bytes(&self) -> usize {
        let of_numbers = size_of::<(Group, u32)>() + 1;
        self.starts.capacity() * size_of::<usize>()
            + (self.groups.capacity() + self.rows.capacity()) * size_of::<u32>()
            + self.known.capacity() * size_of::<Group>()
            + self.numbers.capacity() * of_numbers
    }

    /// Rows that are sorted.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The number, among the rows as they lie, of the row that is the `nth` in this order.
    pub(crate) fn row(&self, nth: usize) -> Option<usize> {
        self.rows.get(nth).map(|&row| row as usize)
    }

    /// The bytes of the `nth` row within COPY data of so many bytes.
    pub(crate) fn tuple(&self, nth: usize, n_bytes: usize) -> Option<Range<usize>> {
        let row = self.row(nth)?;
        let end = self.starts.get(row + 1).copied().unwrap_or(n_bytes);
        Some(self.starts[row]..end)
    }
}

/// Of rows, of which no more than 4 billion fit in memory.
fn small(n: usize) -> u32 {
    u32::try_from(n).expect("a batch has fewer than 4 billion rows")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Rows = Vec<(u32, Option<i64>)>;

    fn rows() -> impl Strategy<Value = Rows> {
        let track_id = prop_oneof![
            1 => Just(None),
            1 => any::<Option<i64>>(),
            // Some of them find the group of another in their place.
            6 => (-3..200_i64).prop_map(Some),
        ];
        prop::collection::vec((0..3_u32, track_id), 0..300)
    }

    /// Some rows are pushed, given up and pushed again before the last of them are.
    fn assert_sorted(order: &mut RowOrder, rows: &Rows, given_up: &Rows, n_before: usize) {
        let push = |order: &mut RowOrder, rows: &[(u32, Option<i64>)], n_before: usize| {
            for (nth, (session, track_id)) in rows.iter().enumerate() {
                order.push(*session, *track_id, (n_before + nth) * 10);
            }
        };
        push(order, &rows[..n_before], 0);
        order.keep();
        let groups_before = order.numbers.clone();
        push(order, given_up, n_before);
        order.give_up();
        assert_eq!(order.numbers, groups_before);
        push(order, &rows[n_before..], n_before);
        order.sort();
        // Postgres has NULL last.
        let key = |row: &usize| (rows[*row].0, rows[*row].1.is_none(), rows[*row].1, *row);
        let mut expected: Vec<usize> = (0..rows.len()).collect();
        expected.sort_by_key(key);
        let found: Vec<usize> = (0..order.len())
            .map(|nth| order.row(nth).unwrap())
            .collect();
        assert_eq!(found, expected);
        for (nth, row) in expected.iter().enumerate() {
            let tuple = row * 10..row * 10 + 10;
            assert_eq!(order.tuple(nth, rows.len() * 10), Some(tuple));
        }
        assert_eq!(order.row(rows.len()), None);
    }

    proptest! {
        #[test]
        fn rows_are_in_order_and_each_is_there_once(
            (first, n_before) in rows().prop_flat_map(|rows| {
                let n_rows = rows.len();
                (Just(rows), 0..=n_rows)
            }),
            given_up in rows(),
            second in rows(),
        ) {
            let mut order = RowOrder::default();
            assert_sorted(&mut order, &first, &given_up, n_before);
            order.clear();
            assert_sorted(&mut order, &second, &given_up, 0);
        }
    }
}

//! Which messages are this worker's to take first: rendezvous hashing of the id over the live workers. Everybody
//! agrees without talking, and when a worker comes or goes only that worker's share moves.

use crate::message::MessageId;

/// The live workers, and which one is this.
#[derive(Clone, Debug)]
pub(super) struct Share {
    own_name: String,
    own_seed: u64,
    other_seeds: Vec<u64>,
    rank: usize,
}

impl Share {
    /// Alone until told otherwise.
    pub(super) fn new(own_name: String) -> Self {
        let own_seed = seed(&own_name);
        Self { own_name, own_seed, other_seeds: Vec::new(), rank: 0 }
    }

    /// Takes the names of the live workers; this one counts whether it is named or not.
    pub(super) fn set_workers(&mut self, names: &[String]) {
        let others: std::collections::BTreeSet<&String> = names.iter().filter(|name| **name != self.own_name).collect();
        self.rank = others.iter().filter(|name| ***name < self.own_name).count();
        self.other_seeds = others.into_iter().map(|name| seed(name)).collect();
    }

    /// How many workers live.
    pub(super) fn workers(&self) -> usize {
        self.other_seeds.len() + 1
    }

    /// This worker's place among the live ones in the order of their names, from 0.
    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    /// Whether this worker takes the message at once. Of equal scores, which are one in 2^64, several do: the claim decides.
    pub(super) fn is_own(&self, id: MessageId) -> bool {
        let bits = id.0.as_u128();
        let key = mix((bits >> 64) as u64 ^ mix(bits as u64));
        let own = mix(self.own_seed ^ key);
        self.other_seeds.iter().all(|other| mix(other ^ key) <= own)
    }
}

/// FNV-1a, then mixed: worker names differ by little.
fn seed(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn fleet(names: &[&str]) -> Vec<Share> {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let member = |name: &String| {
            let mut share = Share::new(name.clone());
            share.set_workers(&all);
            share
        };
        all.iter().map(member).collect()
    }

    fn ids() -> impl Iterator<Item = MessageId> {
        (0..10_000_u128).map(|number| MessageId(Uuid::from_u128(number << 80 | 7 << 76 | 2 << 62 | number)))
    }

    #[test]
    fn every_message_is_one_workers_and_shares_are_about_equal() {
        let fleet = fleet(&["host-1", "host-2", "host-3", "host-4"]);
        let mut counts = [0; 4];
        for id in ids() {
            let owners: Vec<usize> = (0..4).filter(|worker| fleet[*worker].is_own(id)).collect();
            assert_eq!(owners.len(), 1);
            counts[owners[0]] += 1;
        }
        assert!(counts.iter().all(|count| (2300..2700).contains(count)), "{counts:?}");
        assert_eq!(fleet.iter().map(Share::rank).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn when_a_worker_dies_only_its_share_moves() {
        let (before, after) = (fleet(&["a", "b", "c"]), fleet(&["a", "b"]));
        for id in ids() {
            for worker in 0..2 {
                assert!(!before[worker].is_own(id) || after[worker].is_own(id));
            }
        }
    }

    #[test]
    fn a_worker_that_is_not_named_counts_itself() {
        let mut share = Share::new("b".to_owned());
        share.set_workers(&["a".to_owned(), "c".to_owned(), "c".to_owned()]);
        assert_eq!((share.workers(), share.rank()), (3, 1));
    }
}

//! Order in which nodes are asked. Pure: randomness is an argument.

/// A node that may be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// Its score, in (0, 1].
    pub(crate) score: f64,
    /// Requests that it is working on for this router.
    pub(crate) load: usize,
    /// Whether nothing was measured about it yet.
    pub(crate) new: bool,
}

/// Positions of the candidates in the order to ask them: the first is chosen, the others are for when it fails.
///
/// Two are drawn with a chance in proportion to their scores, and the one with less to do goes first (power of two choices):
/// idle nodes get requests in proportion to their scores, a busy one gets fewer. A share `explore` of requests goes to one that nothing is known about. `random` gives numbers in [0, 1).
pub(crate) fn order(candidates: &[Candidate], explore: f64, random: &mut impl FnMut() -> f64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut order = Vec::with_capacity(left.len());
    let new: Vec<usize> = left
        .iter()
        .copied()
        .filter(|i| candidates.get(*i).is_some_and(|c| c.new))
        .collect();
    if !new.is_empty() && new.len() < left.len() && random() < explore {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below the length"
        )]
        let at = (random() * new.len() as f64) as usize;
        if let Some(chosen) = new.get(at.min(new.len() - 1)) {
            left.retain(|i| i != chosen);
            order.push(*chosen);
        }
    }
    while let Some(first) = draw(candidates, &left, random) {
        left.retain(|i| *i != first);
        let Some(second) = draw(candidates, &left, random) else {
            order.push(first);
            break;
        };
        let chosen = if load(candidates, second) < load(candidates, first) {
            left.retain(|i| *i != second);
            left.push(first);
            second
        } else {
            first
        };
        order.push(chosen);
    }
    order
}

fn load(candidates: &[Candidate], i: usize) -> usize {
    candidates.get(i).map_or(usize::MAX, |c| c.load)
}

/// One of `left`, with a chance in proportion to its score.
fn draw(candidates: &[Candidate], left: &[usize], random: &mut impl FnMut() -> f64) -> Option<usize> {
    let weight = |i: &usize| candidates.get(*i).map_or(0.0, |c| c.score.max(1e-6));
    let mut at = random() * left.iter().map(weight).sum::<f64>();
    for i in left {
        at -= weight(i);
        if at < 0.0 {
            return Some(*i);
        }
    }
    left.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    fn firsts(candidates: &[Candidate], explore: f64) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut counts = vec![0u32; candidates.len()];
        for _ in 0..20_000 {
            let order = order(candidates, explore, &mut || rng.random());
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..candidates.len()).collect::<Vec<_>>());
            counts[order[0]] += 1;
        }
        counts.into_iter().map(|n| f64::from(n) / 20_000.0).collect()
    }

    const OLD: Candidate = Candidate {
        score: 0.5,
        load: 0,
        new: false,
    };

    #[test]
    fn better_nodes_get_more_and_worse_ones_get_some() {
        let share = firsts(
            &[Candidate { score: 0.9, ..OLD }, OLD, Candidate { score: 0.1, ..OLD }],
            0.05,
        );
        for (share, expected) in share.iter().zip([0.6, 0.333, 0.067]) {
            assert!((share - expected).abs() < 0.02, "{share}");
        }
        let even = firsts(&[OLD, OLD, OLD, OLD], 0.05);
        assert!(even.iter().all(|s| (s - 0.25).abs() < 0.02), "{even:?}");
        assert!(order(&[], 0.05, &mut || 0.5).is_empty());
    }

    #[test]
    fn load_moves_requests_to_others() {
        let share = firsts(&[Candidate { load: 10, ..OLD }, OLD], 0.05);
        assert_eq!(share[1], 1.0);
    }

    #[test]
    fn newcomers_get_their_share() {
        let new = Candidate {
            score: 0.01,
            new: true,
            ..OLD
        };
        let share = firsts(&[OLD, OLD, new], 0.05);
        assert!((0.05..0.07).contains(&share[2]), "{share:?}");
        let all_new = firsts(&[Candidate { new: true, ..OLD }; 2], 1.0);
        assert!(all_new[0] > 0.4);
    }
}

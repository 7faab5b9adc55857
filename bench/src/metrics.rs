//! Reads Prometheus text.

use eyre::Result;
use std::collections::BTreeMap;

/// One reading of an endpoint: sample name with labels → value.
#[derive(Debug, Default)]
pub(crate) struct Reading(BTreeMap<String, f64>);

impl Reading {
    pub(crate) async fn of(url: &str) -> Result<Self> {
        Ok(Self::parse(&reqwest::get(url).await?.error_for_status()?.text().await?))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Mean of what a histogram without labels observed since `before`, and how often.
    pub(crate) fn mean_since(&self, before: &Self, histogram: &str) -> Option<(f64, f64)> {
        let delta = |suffix: &str| {
            let name = format!("{histogram}_{suffix}");
            self.get(&name) - before.get(&name)
        };
        let count = delta("count");
        (count > 0.0).then(|| (delta("sum") / count, count))
    }

    /// A quantile of what a histogram observed since `before`: linear inside its bucket, and the bucket's upper bound, which
    /// the true quantile does not exceed. `label` is `name="value"`, as exposed.
    pub(crate) fn quantile_since(
        &self,
        before: &Self,
        histogram: &str,
        label: &str,
        quantile: f64,
    ) -> Option<(f64, f64)> {
        let prefix = format!("{histogram}_bucket{{");
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix) && name.contains(label))
            .filter_map(|(name, count)| {
                let bound = name.split("le=\"").nth(1)?.split('"').next()?;
                let bound = if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().ok()?
                };
                Some((bound, count - before.get(name)))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last()?.1;
        let wanted = total * quantile;
        if total <= 0.0 {
            return None;
        }
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= wanted {
                let share = if count > below {
                    (wanted - below) / (count - below)
                } else {
                    1.0
                };
                let value = if bound.is_finite() {
                    lower + (bound - lower) * share
                } else {
                    lower
                };
                return Some((value, bound));
            }
            (lower, below) = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        let text = "# TYPE a histogram\n\
            a_sum{route=\"/x\"} 3\na_count{route=\"/x\"} 4\n\
            a_bucket{le=\"1.0\",route=\"/x\"} 1\na_bucket{le=\"2.0\",route=\"/x\"} 3\n\
            a_bucket{le=\"+Inf\",route=\"/x\"} 4\nb_sum 6\nb_count 3\n";
        let (reading, empty) = (Reading::parse(text), Reading::default());
        assert_eq!(
            reading.quantile_since(&empty, "a", "route=\"/x\"", 0.5),
            Some((1.5, 2.0))
        );
        assert_eq!(reading.quantile_since(&reading, "a", "route=\"/x\"", 0.5), None);
        assert_eq!(reading.mean_since(&empty, "b"), Some((2.0, 3.0)));
    }
}

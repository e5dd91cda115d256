//! Builds a track from the detections on it.

use chrono::{DateTime, Utc};

use crate::{Detection, Gender, Track, TrajectoryPoint};

/// Most points kept in a built trajectory; beyond it every second one is dropped.
const MAX_POINTS: usize = 512;

/// Follows one track through its detections.
///
/// Gender is a vote: each detection that has one adds its `gender_confidence` (1 where it has none)
/// to its side. Detections classified as unknown count against both, so that a person seen clearly
/// once among many blurred views is not called with certainty.
#[derive(Debug, Clone)]
pub struct TrackBuilder {
    session_id: String,
    camera_id: String,
    track_id: i64,
    start_time: DateTime<Utc>,
    end_time: DateTime<Utc>,
    detection_count: i64,
    confidence_sum: f64,
    n_confidences: u32,
    votes: [f64; 3],
    trajectory: Vec<(DateTime<Utc>, f32, f32)>,
    /// Every `stride`-th detection becomes a point.
    stride: u32,
    until_next_point: u32,
}

impl TrackBuilder {
    /// Starts a track with its first detection.
    ///
    /// Returns `None` when the detection is on no track.
    pub fn new(first: &Detection) -> Option<Self> {
        let mut builder = Self {
            session_id: first.session_id.clone(),
            camera_id: first.camera_id.clone(),
            track_id: first.track_id?,
            start_time: first.timestamp,
            end_time: first.timestamp,
            detection_count: 0,
            confidence_sum: 0.0,
            n_confidences: 0,
            votes: [0.0; 3],
            trajectory: Vec::new(),
            stride: 1,
            until_next_point: 0,
        };
        builder.add(first);
        Some(builder)
    }

    /// Adds a further detection of the same track.
    pub fn add(&mut self, detection: &Detection) {
        self.start_time = self.start_time.min(detection.timestamp);
        self.end_time = self.end_time.max(detection.timestamp);
        self.detection_count += 1;
        if let Some(confidence) = detection.confidence {
            self.confidence_sum += f64::from(confidence);
            self.n_confidences += 1;
        }
        if let Some(gender) = detection.gender {
            let weight = detection.gender_confidence.map_or(1.0, f64::from);
            self.votes[usize::from(gender.code())] += weight;
        }
        if self.until_next_point == 0 {
            self.trajectory.push((
                detection.timestamp,
                detection.bbox_x + detection.bbox_width / 2.0,
                detection.bbox_y + detection.bbox_height / 2.0,
            ));
            if self.trajectory.len() > MAX_POINTS {
                let mut keep = false;
                self.trajectory.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.stride *= 2;
            }
            self.until_next_point = self.stride;
        }
        self.until_next_point -= 1;
    }

    /// The snapshot of the track so far.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "means and shares are within 0…1"
    )]
    pub fn snapshot(&self) -> Track {
        let total: f64 = self.votes.iter().sum();
        let winner = [Gender::Male, Gender::Female, Gender::Unknown]
            .into_iter()
            .map(|gender| (gender, self.votes[usize::from(gender.code())]))
            .fold(None::<(Gender, f64)>, |best, vote| match best {
                Some(best) if best.1 > vote.1 => Some(best),
                // A draw is no verdict.
                Some(best) if best.1 == vote.1 => Some((Gender::Unknown, vote.1)),
                _ => Some(vote),
            })
            .filter(|_| total > 0.0);
        Track {
            session_id: self.session_id.clone(),
            camera_id: self.camera_id.clone(),
            track_id: self.track_id,
            start_time: self.start_time,
            end_time: self.end_time,
            detection_count: self.detection_count,
            avg_confidence: (self.n_confidences > 0)
                .then(|| (self.confidence_sum / f64::from(self.n_confidences)) as f32),
            trajectory: self
                .trajectory
                .iter()
                .map(|&(time, x, y)| TrajectoryPoint {
                    offset_ms: u32::try_from((time - self.start_time).num_milliseconds())
                        .unwrap_or(u32::MAX),
                    x,
                    y,
                })
                .collect(),
            gender: winner.map(|(gender, _)| gender),
            gender_confidence: winner.map(|(_, votes)| (votes / total) as f32),
            degraded: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(second: i64, gender: Option<Gender>, weight: f32) -> Detection {
        Detection {
            timestamp: DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap(),
            session_id: "s".into(),
            camera_id: "c".into(),
            channel_id: 0,
            detection_id: second,
            track_id: Some(7),
            confidence: Some(0.5),
            bbox_x: 10.0,
            bbox_y: 20.0,
            bbox_width: 4.0,
            bbox_height: 8.0,
            gender,
            gender_confidence: gender.map(|_| weight),
            frame_number: second,
            degraded: false,
        }
    }

    fn vote(votes: &[(Option<Gender>, f32)]) -> Option<Gender> {
        let mut builder = TrackBuilder::new(&detection(0, votes[0].0, votes[0].1)).unwrap();
        for (second, (gender, weight)) in (1..).zip(&votes[1..]) {
            builder.add(&detection(second, *gender, *weight));
        }
        builder.snapshot().gender
    }

    #[test]
    fn gender_is_the_weighted_vote_of_the_detections() {
        use Gender::{Female, Male, Unknown};
        assert_eq!(vote(&[(None, 0.0)]), None);
        assert_eq!(vote(&[(Some(Male), 0.9), (None, 0.0)]), Some(Male));
        assert_eq!(
            vote(&[(Some(Male), 0.4), (Some(Male), 0.3), (Some(Female), 0.9)]),
            Some(Female)
        );
        assert_eq!(
            vote(&[(Some(Male), 0.5), (Some(Female), 0.5)]),
            Some(Unknown)
        );
        assert_eq!(
            vote(&[(Some(Male), 0.5), (Some(Unknown), 0.9)]),
            Some(Unknown)
        );
    }

    #[test]
    fn snapshots_merge_to_the_same_track_in_any_order() {
        let mut builder = TrackBuilder::new(&detection(5, None, 0.0)).unwrap();
        let early = builder.snapshot();
        builder.add(&detection(9, None, 0.0));
        builder.add(&detection(3, None, 0.0));
        let late = builder.snapshot();
        assert_eq!(early.clone().merge(late.clone()), late);
        assert_eq!(late.clone().merge(early), late);
        assert_eq!(late.clone().merge(late.clone()), late);
        assert_eq!(late.detection_count, 3);
        assert_eq!(late.trajectory[0].offset_ms, 2000);
    }

    #[test]
    fn a_trajectory_stays_bounded_however_long_the_track() {
        let mut builder = TrackBuilder::new(&detection(0, None, 0.0)).unwrap();
        for second in 1..20_000 {
            builder.add(&detection(second, None, 0.0));
        }
        let track = builder.snapshot();
        assert!(track.trajectory.len() <= MAX_POINTS);
        assert!(track.trajectory.len() > MAX_POINTS / 4);
        assert_eq!(track.detection_count, 20_000);
    }
}

//! Looking for what is due, and starting it. Each look asks for the lanes that something happened to, and no more.

use super::planning::plan;
use super::{Errand, LOOK, MAX_ATTEMPTS, MAX_PLANNING, Runner, SPOOL_TROUBLE, Work, attempt, lane_of};
use crate::delivery::attempt::OpenTime;
use crate::delivery::gates::Passage;
use crate::delivery::pace::{Now, Ticket};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::spool::{Lane, LaneAgenda, Part, Slots, StoreError};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// Lanes in one question to the spool at most: about a millisecond's work.
const LANES_AT_ONCE: usize = 64;

impl Runner {
    /// Starts everything that is due and allowed; answers when to look again if nothing else happens.
    pub(super) async fn look(&mut self, now: Timestamp) -> Result<Instant, StoreError> {
        if self.survey <= Instant::now() {
            self.find_lanes().await?;
        }
        loop {
            let moment = Instant::now();
            let planning = self.planning().count();
            // With half of the places free, one question fills them. What is being planned is among the answers.
            let unplanned = if self.unplanned && planning <= MAX_PLANNING / 2 {
                MAX_PLANNING + self.abandoned.messages.len()
            } else {
                0
            };
            let wanted = self.wanted(Now { time: now, moment });
            if wanted.is_empty() && unplanned == 0 {
                return Ok(self.next_look(moment));
            }
            let lanes: Vec<Lane> = wanted.iter().map(|(lane, _)| lane.clone()).collect();
            let (ids, agendas) = match self.context.store.look(now, unplanned, wanted).await {
                Ok(found) => found,
                Err(error) => {
                    for lane in lanes {
                        self.lanes.wake(&lane, moment + SPOOL_TROUBLE, moment, false);
                    }
                    return Err(error);
                }
            };
            if unplanned > 0 {
                self.unplanned = ids.len() >= unplanned;
                for id in ids {
                    // Who finds no place is asked for again.
                    self.unplanned |= !self.start_planning(id);
                }
            }
            for agenda in agendas {
                self.start_lane(agenda, now, moment);
            }
        }
    }

    /// All lanes with mail are to be looked at: after the start, and now and then as a safety net.
    async fn find_lanes(&mut self) -> Result<(), StoreError> {
        for lane in self.context.store.waiting_lanes().await? {
            self.wake(&lane, Instant::now());
        }
        self.unplanned = true;
        self.survey = Instant::now() + LOOK;
        Ok(())
    }

    fn next_look(&self, moment: Instant) -> Instant {
        // Where all places are taken, the end of an attempt is what to wait for.
        let lane = self.lanes.next().filter(|_| self.under_way() < MAX_ATTEMPTS);
        let soonest = moment + Duration::from_millis(1);
        lane.map_or(self.survey, |at| at.min(self.survey)).max(soonest)
    }

    /// Of the lanes whose time has come, those whose mail can go, and how much of it.
    fn wanted(&mut self, now: Now) -> Vec<(Lane, Slots)> {
        let (moment, busy) = (now.moment, self.busy());
        let free = MAX_ATTEMPTS.saturating_sub(self.under_way());
        let mut wanted = Vec::new();
        let mut probing = HashSet::new();
        for lane in self.lanes.take(free.min(LANES_AT_ONCE), moment) {
            let in_lane = self.in_lane(&lane);
            // What is under way is still due in the eyes of the spool until its marker is written, and what was
            // abandoned stays so: it is left out, or asked for besides.
            let more = in_lane + self.abandoned.parts.len();
            match self.gates.passage(&lane, moment) {
                // Woken again when it is resumed, when a place is free, when the probe has come back.
                _ if self.is_paused(&lane.account) => {}
                Passage::Probe { .. } if in_lane > 0 => {}
                Passage::Probing => {}
                Passage::Closed { until } => self.lanes.wake(&lane, until, moment, false),
                Passage::Open => match self.room(&lane, now, &busy) {
                    Slots::None => {}
                    slots => wanted.push((lane, slots)),
                },
                Passage::Probe { turn } if probing.insert(lane.account.clone()) => {
                    let (take, skip) = (1 + more, turn as usize);
                    wanted.push((lane, Slots::Oldest { take, skip }));
                }
                // Another lane of the account may become the probe; if it does not, this one is asked next.
                Passage::Probe { .. } => self.lanes.wake(&lane, moment, moment, false),
            }
        }
        wanted
    }

    fn start_lane(&mut self, agenda: LaneAgenda, now: Timestamp, moment: Instant) {
        let LaneAgenda {
            lane,
            due,
            more,
            next_due,
            damaged,
        } = agenda;
        for (part, damage) in damaged {
            self.put_aside(part, &damage);
        }
        let nothing_due = due.is_empty();
        for part in due {
            self.start_if_allowed(part, Now { time: now, moment });
        }
        if more && self.under_way() >= MAX_ATTEMPTS && self.has_room(&lane, Now { time: now, moment }) {
            // It has a place of its own free, and none of all: its turn comes again.
            self.lanes.wake(&lane, moment, moment, true);
        }
        match next_due {
            Some(due) => self.lanes.wake(&lane, moment + due.since(now), moment, true),
            None if nothing_due && self.in_lane(&lane) == 0 => self.lanes.forget(&lane),
            None => {}
        }
    }

    fn start_if_allowed(&mut self, part: Part, now: Now) {
        let lane = lane_of(&part);
        let is_known = |work: &Work| matches!(work, Work::Attempt { part: other, .. } if *other == part.id);
        if self.work.values().any(is_known)
            || self.under_way() >= MAX_ATTEMPTS
            || self.is_paused(&lane.account)
            || self.abandoned.parts.contains(&part.id)
        {
            return;
        }
        let in_lane = self.in_lane(&lane);
        let errand = match self.gates.passage(&lane, now.moment) {
            Passage::Open => Errand::Ordinary,
            Passage::Probe { .. } if in_lane == 0 => Errand::Probe,
            Passage::Probe { .. } | Passage::Probing | Passage::Closed { .. } => return,
        };
        if let Some(ticket) = self.ticket(&part, &lane, now) {
            if errand == Errand::Probe {
                self.gates.probe_started(&lane);
            }
            self.start_attempt(part, lane, errand, ticket);
        }
    }

    fn start_attempt(&mut self, part: Part, lane: Lane, errand: Errand, ticket: Ticket) {
        let id = part.id;
        let upstream = self.upstreams.get(&part.account).cloned();
        let context = self.context.clone();
        let open = OpenTime {
            run: self.run_began,
            at: self.lanes.open_time(&lane, Instant::now()),
        };
        let task = self
            .tasks
            .spawn(async move { attempt(&context, part, upstream, open).await });
        let work = Work::Attempt {
            part: id,
            lane,
            errand,
            ticket,
        };
        self.work.insert(task.id(), work);
    }

    /// Answers false if there is no place left.
    fn start_planning(&mut self, id: QueueId) -> bool {
        if self.planning().any(|other| other == id) || self.abandoned.messages.contains(&id) {
            return true;
        }
        if self.planning().count() >= MAX_PLANNING {
            return false;
        }
        let (context, planner) = (self.context.clone(), self.planner.clone());
        let task = self.tasks.spawn(async move { plan(&context, planner, id).await });
        self.work.insert(task.id(), Work::Planning(id));
        true
    }

    fn planning(&self) -> impl Iterator<Item = QueueId> {
        self.work.values().filter_map(|work| match work {
            Work::Planning(id) => Some(*id),
            Work::Attempt { .. } | Work::Other => None,
        })
    }

    /// Attempts under way in a lane.
    fn in_lane(&self, lane: &Lane) -> usize {
        self.work
            .values()
            .filter(|work| matches!(work, Work::Attempt { lane: other, .. } if other == lane))
            .count()
    }

    /// Attempts under way.
    pub(super) fn under_way(&self) -> usize {
        self.work
            .values()
            .filter(|work| matches!(work, Work::Attempt { .. }))
            .count()
    }
}

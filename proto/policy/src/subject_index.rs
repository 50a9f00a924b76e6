//! From a subject to the policies that speak of it.

use std::collections::HashMap;
use std::hash::Hash;

use adit_proto::{DeviceId, GroupId, UserId, api::Policy};

use crate::places::Places;

/// The policies that each user, group and device is named by, and those that name everyone.
pub(crate) struct SubjectIndex {
    row_len: usize,
    everyone: Places,
    users: HashMap<UserId, Places>,
    groups: HashMap<GroupId, Places>,
    devices: HashMap<DeviceId, Places>,
}

impl SubjectIndex {
    /// Of policies whose places are their order.
    pub(crate) fn new<'a>(policies: impl Iterator<Item = &'a Policy> + Clone) -> Self {
        let row_len = policies.clone().count();
        let listed = (0..).zip(policies).map(|(place, policy)| (place, &policy.subjects));
        let everyone =
            listed.clone().filter(|(_place, it)| it.everyone).map(|(place, _)| place).collect();
        let some = listed.filter(|(_place, subjects)| !subjects.everyone);
        Self {
            row_len,
            everyone: Places::from_sorted(everyone, row_len),
            users: by_name(some.clone().map(|(place, it)| (place, it.users.as_slice())), row_len),
            groups: by_name(some.clone().map(|(place, it)| (place, it.groups.as_slice())), row_len),
            devices: by_name(some.map(|(place, it)| (place, it.devices.as_slice())), row_len),
        }
    }

    /// Those that speak of this subject, or of every device of a user.
    pub(crate) fn find(
        &self,
        user: UserId,
        groups: &[GroupId],
        device: Option<DeviceId>,
    ) -> Places {
        let mut sets = Vec::with_capacity(groups.len() + 3);
        sets.push(&self.everyone);
        sets.extend(self.users.get(&user));
        sets.extend(groups.iter().filter_map(|group| self.groups.get(group)));
        sets.extend(device.and_then(|device| self.devices.get(&device)));
        Places::union(&sets, self.row_len)
    }

    /// Whether some policy names this device.
    pub(crate) fn names_device(&self, device: DeviceId) -> bool {
        self.devices.contains_key(&device)
    }
}

fn by_name<'a, Name: Copy + Eq + Hash + 'a>(
    policies: impl Iterator<Item = (u32, &'a [Name])>,
    row_len: usize,
) -> HashMap<Name, Places> {
    let mut listed: HashMap<Name, Vec<u32>> = HashMap::new();
    for (place, names) in policies {
        for name in names {
            let places = listed.entry(*name).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }
    listed.into_iter().map(|(name, places)| (name, Places::from_sorted(places, row_len))).collect()
}

package control

import "github.com/berth-run/berth"

// shareOf is what a task shares the room of an infrastructure as: its owner, or
// the value of the label that the infrastructure names.
func shareOf(entry *berth.InfrastructureConfig, owner string, labels map[string]string) string {
	switch by := entry.Limits.FairShare; by {
	case "", berth.FairShareOwner:
		return owner
	case berth.FairShareNone:
		return ""
	default:
		return labels[by]
	}
}

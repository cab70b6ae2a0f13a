package control

import (
	"log/slog"
	"testing"

	"github.com/berth-run/berth"
)

// Our own registry has packages at its root alone: nodes would look for them in
// vain below a prefix.
func TestOurOwnRegistryHasNoPrefix(t *testing.T) {
	p := newPackages((&storage{dir: t.TempDir()}).openRegistry, []string{"berth.example:7070"}, slog.New(slog.DiscardHandler))
	for registry, want := range map[string]string{
		"berth.example:7070":      "berth.example:7070",
		"berth.example:7070/team": "berth.example:7070",
		"other.example:5000/team": "other.example:5000/team",
		"berth.example":           "berth.example",
	} {
		if got := p.registryOf(berth.InfrastructureConfig{Registry: registry}); got != want {
			t.Errorf("%s: %s, want %s", registry, got, want)
		}
	}
}

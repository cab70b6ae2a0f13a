package control

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berth-run/berth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// join opens a data directory as a process would: locks belong to open files,
// so members of one process are to each other as processes are.
func join(t *testing.T, dir string) *Member {
	t.Helper()
	m, err := Open(t.Context(), Config{InfraPath: filepath.Join(dir, "infra.yml"), DataDir: filepath.Join(dir, "data"), Version: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func hosts(members []*Member) int {
	n := 0
	for _, m := range members {
		if m.Hosting() {
			n++
		}
	}
	return n
}

func TestOneMemberIsTheHostAndAGuestTakesItsPlace(t *testing.T) {
	dir := t.TempDir()
	var members []*Member
	for range 5 {
		members = append(members, join(t, dir))
	}
	first, err := members[0].Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for len(members) > 0 {
		if n := hosts(members); n != 1 {
			t.Fatalf("%d of %d members are the host", n, len(members))
		}
		for i, m := range members {
			if m.Hosting() {
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				members = append(members[:i:i], members[i+1:]...)
				break
			}
		}
		for _, m := range members {
			if info, err := m.Info(t.Context()); err != nil || info.Instance != first.Instance {
				t.Fatalf("after the host left: %+v, %v", info, err)
			}
		}
	}
}

func TestADataDirectoryMayLieDeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 60))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	host, guest := join(t, dir), join(t, dir)
	if !host.Hosting() || guest.Hosting() {
		t.Errorf("host %t, guest %t", host.Hosting(), guest.Hosting())
	}
	if _, err := guest.Info(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheDataDirectoryIsForOneUserAlone(t *testing.T) {
	dir := t.TempDir()
	join(t, dir)
	for name, want := range map[string]os.FileMode{"data": 0o700, "data/lock": 0o600, "data/berth.sock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

func TestErrorsReachGuestsWithTheirCodes(t *testing.T) {
	dir := t.TempDir()
	for name, m := range map[string]*Member{"host": join(t, dir), "guest": join(t, dir)} {
		if _, err := m.Task(t.Context(), "none"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("%s: an unknown task: %v", name, err)
		}
		_, err := m.SubmitTask(t.Context(), berth.Submission{Spec: berth.TaskSpec{Image: "busybox"}})
		if berth.CodeOf(err) != berth.CodeNotFound || !strings.Contains(err.Error(), "berth infra add") {
			t.Errorf("%s: without infra.yml: %v", name, err)
		}
		for _, err := range m.WatchTask(t.Context(), "none") {
			if berth.CodeOf(err) != berth.CodeNotFound {
				t.Errorf("%s: watching an unknown task: %v", name, err)
			}
		}
	}
}

func TestACallThatIsGivenUpReturns(t *testing.T) {
	dir := t.TempDir()
	join(t, dir)
	guest := join(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := guest.Info(ctx); err == nil {
		t.Error("a call whose time was over succeeded")
	}
}

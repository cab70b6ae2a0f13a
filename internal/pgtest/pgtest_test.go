package pgtest

import (
	"os"
	"syscall"
	"testing"
)

func TestAServerIsWhereItWasAfterARestart(t *testing.T) {
	s := New(t)
	_ = s.Database(t)
	s.Do(t, "test1", "CREATE TABLE kept (n int)")
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		s.Stop(signal)
		if err := do(s.URL("berth", Password, "test1"), "SELECT 1"); err == nil {
			t.Fatal("a server that was stopped answers")
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		s.Do(t, "test1", "INSERT INTO kept VALUES (1)")
	}
	s.Close()
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("its directory is left: %v", err)
	}
}

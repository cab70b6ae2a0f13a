package process

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestAPidOfSomebodyElseIsNotOurs(t *testing.T) {
	self := Process{Name: "self", PID: os.Getpid(), Boot: boot()}
	var err error
	if self.StartTime, err = startTime(self.PID); err != nil {
		t.Fatal(err)
	}
	if !self.Alive() {
		t.Error("this process is not alive")
	}
	for name, other := range map[string]Process{
		"started at another time": {PID: self.PID, StartTime: self.StartTime + 1, Boot: self.Boot},
		"before a reboot":         {PID: self.PID, StartTime: self.StartTime, Boot: "another"},
		"no pid":                  {Boot: self.Boot},
	} {
		if other.Alive() {
			t.Errorf("%s: alive", name)
		}
		if err := other.Stop(context.Background(), time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStopForcesWhatDoesNotListen(t *testing.T) {
	command := exec.Command("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.01; done")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = command.Wait() }()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	p := Process{Name: "deaf", PID: command.Process.Pid, Boot: boot()}
	if p.StartTime, err = startTime(p.PID); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(context.Background(), 50*time.Millisecond); err != nil || p.Alive() {
		t.Errorf("stopped: %v, alive: %t", err, p.Alive())
	}
}

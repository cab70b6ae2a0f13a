package control

import (
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
)

// texts words the diagnoses of the engine.
type texts struct{}

func (texts) Lost(infrastructure string, t *berth.Task) *berth.Diagnosis {
	return &diagnosis.Lost(subject(infrastructure, t), time.Now()).Diagnosis
}

func (texts) StartTimedOut(infrastructure string, t *berth.Task, limit time.Duration) *berth.Diagnosis {
	last := ""
	if t.Reason != nil {
		last = *t.Reason
	}
	return &diagnosis.StartTimedOut(subject(infrastructure, t), limit, last, time.Now()).Diagnosis
}

func subject(infrastructure string, t *berth.Task) diagnosis.Subject {
	s := diagnosis.Subject{Infrastructure: infrastructure, Task: t.ID, Image: t.Image, CPU: t.Spec.CPU, Memory: t.Spec.Memory}
	if t.Pod != nil {
		s.Pod = *t.Pod
	}
	return s
}

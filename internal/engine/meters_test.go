package engine

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// runs lets the pod of a task begin to run.
func (c *cluster) runs(task berth.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.pods[*task.Pod]
	o.StartedAt = time.Now()
	c.pods[*task.Pod] = o
	c.sink.Observed(o)
}

// busy lets all pods use half a CPU and 1 MiB, by what a cluster tells.
func (c *cluster) busy() {
	c.readings = func() map[string]berth.Reading {
		readings := map[string]berth.Reading{}
		for pod, o := range c.pods {
			if !o.StartedAt.IsZero() && o.Outcome == nil {
				readings[pod] = berth.Reading{Source: berth.UsageFromCluster, At: time.Now(), Cores: 0.5, MemoryBytes: 1 << 20}
			}
		}
		return readings
	}
}

func (c *cluster) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usageCalls
}

// running submits a task and lets it run.
func (p *process) running(c *cluster, change func(*berth.TaskSpec)) berth.Task {
	p.t.Helper()
	task := p.submit(change)
	synctest.Wait()
	c.runs(task)
	synctest.Wait()
	return p.until(task.ID, func(task berth.Task) bool { return task.State == berth.StateRunning })
}

func (p *process) metrics(id string) berth.TaskMetrics {
	p.t.Helper()
	m, err := p.engine.Metrics(p.t.Context(), id, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// heartbeat is what an agent tells that counted CPU seconds.
func heartbeat(task berth.Task, cpuSeconds float64) agent.Report {
	memory := int64(3 << 20)
	return reportOf(task, agent.Event{Type: berth.EventHeartbeat, At: time.Now(), Usage: &agent.Usage{CPUSeconds: &cpuSeconds, MemoryBytes: &memory}})
}

func TestAllThatRunsIsMeasuredByOneQuestionAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.busy()
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		synctest.Wait()
		time.Sleep(10 * time.Minute)
		if n := c.questions(); n != 0 {
			t.Errorf("%d questions while nothing runs", n)
		}
		var tasks []berth.Task
		for range 50 {
			tasks = append(tasks, p.running(c, nil))
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if n := c.questions(); n != 4 {
			t.Errorf("%d questions in a minute for %d tasks, want 4", n, len(tasks))
		}
		for _, task := range tasks {
			m := p.metrics(task.ID)
			// They began within two seconds: commits of many are apart.
			if len(m.Samples) != 4 || math.Abs(*m.CPU.Seconds-30) > 2 || *m.Memory.Peak != 1<<20 || *m.Source != berth.UsageFromCluster {
				t.Fatalf("%d samples, %v CPU seconds, %+v", len(m.Samples), *m.CPU.Seconds, m.Memory)
			}
			if got, err := p.engine.Task(t.Context(), task.ID); err != nil || got.Usage.CPUSeconds == nil || *got.Usage.CPUSeconds != *m.CPU.Seconds {
				t.Fatalf("the task itself says %+v, %v", got.Usage, err)
			}
			c.ends(*task.Pod, 0)
		}
		for _, task := range tasks {
			p.until(task.ID, ended)
		}
		asked := c.questions()
		time.Sleep(10 * time.Minute)
		if n := c.questions(); n != asked {
			t.Errorf("%d questions after the last task ended", n-asked)
		}
		p.crash()
	})
}

func TestWhatAnEndedTaskUsedIsStoredWithItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, c := t.TempDir(), newCluster()
		c.busy()
		p := start(t, dir, c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, nil)
		time.Sleep(40 * time.Second) // 10 s after the last sample
		c.ends(*task.Pod, 0)
		task = p.until(task.ID, ended)
		if u := p.stored(task.ID).Task.Usage; u.CPUSeconds == nil || *u.CPUSeconds != 20 || *u.MemoryPeakBytes != 1<<20 || *u.Source != berth.UsageFromCluster {
			t.Errorf("stored: %+v", u)
		}
		if m := p.metrics(task.ID); *m.CPU.Seconds != 20 || *m.CPU.Mean != 0.5 || len(m.Samples) != 2 {
			t.Errorf("%+v, %d samples", m.CPU, len(m.Samples))
		}
		p.crash()
	})
}

// A crash loses an interval at most, and what comes after it goes on.
func TestAMeterSurvivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, c := t.TempDir(), newCluster()
		c.busy()
		p := start(t, dir, c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, nil)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		p.crash()
		p = start(t, dir, c, berth.InfrastructureConfig{})
		synctest.Wait()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		m := p.metrics(task.ID)
		if len(m.Samples) != 4 || *m.CPU.Seconds != 30.5 {
			t.Errorf("%d samples, %v CPU seconds after 61 s of half a CPU", len(m.Samples), *m.CPU.Seconds)
		}
		p.crash()
	})
}

func TestAnInfrastructureThatIsNotMeteredIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.usageErr = &Unmetered{Reason: "it is not granted: ask the engineer"}
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := c.questions(); n != 1 {
			t.Errorf("%d questions in five minutes, want 1", n)
		}
		if m := p.metrics(task.ID); m.Note == nil || !strings.Contains(*m.Note, "ask the engineer") || m.CPU.Seconds != nil {
			t.Errorf("while it runs: %+v", m)
		}
		c.ends(*task.Pod, 0)
		p.until(task.ID, ended)
		p.crash()
		c.usageErr = nil
		p = start(t, p.dir, c, berth.InfrastructureConfig{})
		synctest.Wait()
		if m := p.metrics(task.ID); m.Note == nil || !strings.Contains(*m.Note, "ask the engineer") {
			t.Errorf("after it ended, told by another process: %v", m.Note)
		}
		p.crash()
	})
}

func TestAGrantThatComesLaterIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.busy()
		c.usageErr = &Unmetered{Reason: "it is not granted"}
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, nil)
		time.Sleep(time.Minute)
		c.mu.Lock()
		c.usageErr = nil
		c.mu.Unlock()
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if m := p.metrics(task.ID); len(m.Samples) == 0 || m.Note == nil || !strings.Contains(*m.Note, "nobody measured it") {
			t.Errorf("%d samples, note %v", len(m.Samples), m.Note)
		}
		p.crash()
	})
}

func TestACallThatFailsIsMadeLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.usageErr = errors.New("503 Service Unavailable")
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := c.questions(); n < 12 || n > 20 {
			t.Errorf("%d questions in an hour", n)
		}
		if m := p.metrics(task.ID); m.Note == nil || !strings.Contains(*m.Note, "503") {
			t.Errorf("%v", m.Note)
		}
		p.crash()
	})
}

func TestAnAgentsOwnCountComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.busy()
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, withSteps)
		p.tells(reportOf(task, ready()))
		for i := range 12 {
			p.tells(heartbeat(task, float64(i)))
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if n := c.questions(); n != 0 {
			t.Errorf("%d questions though the agent tells all", n)
		}
		m := p.metrics(task.ID)
		if *m.Source != berth.UsageFromAgent || *m.CPU.Seconds != 11 || *m.Memory.Peak != 3<<20 || len(m.Samples) != 11 { // one at the very start is none
			t.Errorf("%v, %+v, %d samples", m.Source, m.CPU, len(m.Samples))
		}
		// The agent's last word is exact, whatever was sampled.
		end := completion(2, 0, "")
		cpu, peak := 12.5, int64(9<<20)
		end.Completion.Usage = &agent.Usage{CPUSeconds: &cpu, MemoryPeakBytes: &peak}
		p.tells(reportOf(task, end))
		if u := p.stored(task.ID).Task.Usage; *u.CPUSeconds != 12.5 || *u.MemoryPeakBytes != 9<<20 || *u.Source != berth.UsageFromAgent {
			t.Errorf("stored: %+v", u)
		}
		p.crash()
	})
}

// Where an agent falls silent the cluster's figures are taken, and none is lower than before.
func TestAnAgentThatFallsSilentIsMeasuredByTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.busy()
		p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
		synctest.Wait()
		task := p.running(c, withSteps)
		p.tells(reportOf(task, ready()))
		time.Sleep(10 * time.Second)
		p.tells(heartbeat(task, 8))
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		m := p.metrics(task.ID)
		if c.questions() == 0 || *m.Source != berth.UsageFromCluster || *m.CPU.Seconds <= 8 {
			t.Errorf("%d questions, %+v", c.questions(), m.CPU)
		}
		p.crash()
	})
}

func TestMetricsOfAnAttemptThatThereIsNot(t *testing.T) {
	c := newCluster()
	p := start(t, t.TempDir(), c, berth.InfrastructureConfig{})
	task := p.submit(nil)
	if _, err := p.engine.Metrics(t.Context(), task.ID, 2); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("%v", err)
	}
	if _, err := p.engine.Metrics(t.Context(), "nosuchtask", 0); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("%v", err)
	}
}

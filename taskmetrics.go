package berth

import (
	"fmt"
	"time"
)

// MetricsQuery selects what is told of a task's use.
type MetricsQuery struct {
	Attempt int // 0: the last
}

// TaskMetrics is what an attempt of a task used, against what it asked for.
// What was not measured, or not asked for, is null.
type TaskMetrics struct {
	TaskID    string       `json:"task"`
	State     TaskState    `json:"state"`
	Attempt   int          `json:"attempt"` // 0: there was none yet
	StartedAt *time.Time   `json:"startedAt"`
	EndedAt   *time.Time   `json:"endedAt"`
	Source    *UsageSource `json:"source"` // of the totals
	Interval  float64      `json:"sampleIntervalSeconds"`
	CPU       CPUUse       `json:"cpu"`
	Memory    MemoryUse    `json:"memory"`
	Samples   []Sample     `json:"samples"`
	Advice    []string     `json:"advice"` // sentences
	Note      *string      `json:"note"`   // why there is nothing, or what is missing
}

// CPUUse is in CPUs: 1 is all of one processor.
type CPUUse struct {
	Seconds          *float64 `json:"seconds"`
	Mean             *float64 `json:"mean"`
	Peak             *float64 `json:"peak"` // between two samples
	Request          *float64 `json:"request"`
	Limit            *float64 `json:"limit"`
	ThrottledSeconds *float64 `json:"throttledSeconds"` // held back at the limit; of all its processors together
}

// MemoryUse is in bytes.
type MemoryUse struct {
	Mean       *int64 `json:"meanBytes"`
	Peak       *int64 `json:"peakBytes"`           // what an agent says counts file cache too
	WorkingSet *int64 `json:"workingSetPeakBytes"` // of the samples: without file cache that could be dropped
	Request    *int64 `json:"requestBytes"`
	Limit      *int64 `json:"limitBytes"`
}

// NewTaskMetrics puts together what is known of an attempt's use. The meter is
// nil when nothing was measured while it ran; unmeasured says why that is so at
// the moment, where it is known.
func NewTaskMetrics(life *Life, number int, meter *Meter, samples []Sample, unmeasured string, now time.Time) TaskMetrics {
	t := &life.Task
	m := TaskMetrics{
		TaskID: t.ID, State: t.State, Attempt: number, Interval: SampleInterval.Seconds(),
		CPU: CPUUse{Request: t.Spec.CPU.cores(), Limit: t.Spec.CPU.cores()}, Memory: MemoryUse{Request: t.Spec.Memory.bytes(), Limit: t.Spec.Memory.bytes()},
		Samples: append([]Sample{}, samples...), Advice: []string{},
	}
	a := life.ByNumber(number)
	if a == nil || a.StartedAt.IsZero() {
		note := "it has not started yet"
		if t.State.Terminal() || a != nil && a.Outcome != nil {
			note = "its program never started, so it used nothing"
		}
		m.Note = &note
		return m
	}
	m.StartedAt = timePtr(a.StartedAt)
	by := now
	if a.Outcome != nil {
		by, m.EndedAt = a.EndedAt, timePtr(a.EndedAt)
	}
	var used AttemptUsage
	if meter != nil && meter.Readings > 0 {
		used = meter.Total(meter.Last.At)
		m.CPU.Peak = &meter.CPUPeak
		m.Memory.WorkingSet = &meter.MemoryPeakBytes
		mean := int64(meter.MemorySum / float64(meter.Readings))
		m.Memory.Mean = &mean
		if a.Outcome == nil {
			by = meter.Last.At
		}
	}
	if a.Usage != nil && a.Usage.Source != nil {
		used = *a.Usage
	}
	m.Source, m.CPU.Seconds, m.CPU.ThrottledSeconds, m.Memory.Peak = used.Source, used.CPUSeconds, used.ThrottledSeconds, used.MemoryPeakBytes
	ran := by.Sub(a.StartedAt)
	if m.CPU.Seconds != nil && ran > 0 {
		mean := micro(*m.CPU.Seconds / ran.Seconds())
		m.CPU.Mean = &mean
		if m.CPU.Peak != nil && *m.CPU.Peak < mean {
			m.CPU.Peak = &mean // what was used between readings is known by its total alone
		}
	}
	if a.Usage != nil && a.Usage.Unmeasured != "" {
		unmeasured = a.Usage.Unmeasured
	}
	if note := m.note(a, meter, unmeasured, ran); note != "" {
		m.Note = &note
	}
	m.Advice = append(m.Advice, advice(&m, a, ran)...)
	return m
}

// note says why there is nothing to be shown, or what is missing.
func (m *TaskMetrics) note(a *Attempt, meter *Meter, unmeasured string, ran time.Duration) string {
	every := fmt.Sprintf("(every %s)", SampleInterval)
	switch {
	case m.Source != nil && len(m.Samples) == 0 && a.Outcome != nil && ran < 2*SampleInterval:
		return fmt.Sprintf("it ended after %s: too short to be sampled %s; the totals are what its agent counted", roughly(ran), every)
	case m.Source != nil && len(m.Samples) == 0 && a.Outcome != nil:
		if unmeasured == "" {
			unmeasured = "no sample was taken while it ran"
		}
		return "there is no course over time: " + unmeasured + "; the totals are what its agent counted"
	case m.Source != nil && meter != nil && meter.Unseen > 0:
		return fmt.Sprintf("for %s of its time nobody measured it, and the CPU seconds of that time are missing", roughly(time.Duration(meter.Unseen*float64(time.Second))))
	case m.Source != nil:
		return ""
	case a.Outcome != nil && ran < 2*SampleInterval:
		return fmt.Sprintf("it ended after %s: too short to be sampled %s", roughly(ran), every)
	case unmeasured != "":
		return unmeasured
	case a.Outcome == nil:
		return fmt.Sprintf("it has run for %s and was not sampled yet %s; the first sample of a cluster takes up to a minute", roughly(ran), every)
	}
	return "nothing was measured: samples are taken while a berth command or server runs, and none ran for long enough meanwhile"
}

// roughly is a duration as people say it.
func roughly(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return d.Round(time.Minute).String()
}

// cores is a quantity of CPU; nil when none was given.
func (q Quantity) cores() *float64 {
	milli, err := q.MilliCPU()
	if err != nil {
		return nil
	}
	cores := float64(milli) / 1000
	return &cores
}

// bytes is a quantity of memory; nil when none was given.
func (q Quantity) bytes() *int64 {
	n, err := q.Bytes()
	if err != nil {
		return nil
	}
	return &n
}

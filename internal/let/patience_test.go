package let

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// far is a control plane in a time that tests make pass.
type far func(*http.Request) (int, error)

func (f far) RoundTrip(r *http.Request) (*http.Response, error) {
	status, err := f(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
}

func away(t *testing.T, heartbeat time.Duration, f far) *callback {
	c := newCallback(&agent.Order{Callback: &agent.Callback{URL: "http://far", Token: "token", Heartbeat: heartbeat}})
	c.client.Transport = f
	t.Cleanup(c.close)
	return c
}

var errAway = errors.New("connection refused")

func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func TestAControlPlaneThatWasNeverReachedIsGivenUpAfterASecond(t *testing.T) {
	for name, f := range map[string]far{
		"nobody listens":  func(*http.Request) (int, error) { return 0, errAway },
		"nobody answers":  func(r *http.Request) (int, error) { <-r.Context().Done(); return 0, r.Context().Err() },
		"it never can":    func(*http.Request) (int, error) { return 503, nil },
		"it answers late": func(*http.Request) (int, error) { time.Sleep(4 * time.Second); return 200, nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := away(t, time.Hour, f)
			c.send(ready)
			if got := took(func() { c.finish(completed) }); got != unreachable || got > time.Second {
				t.Errorf("%s: the end took %s", name, got)
			}
		})
	}
}

func TestAControlPlaneThatWasReachedIsTriedFor5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := false
		c := away(t, time.Hour, func(*http.Request) (int, error) {
			if lost {
				return 0, errAway
			}
			return 200, nil
		})
		c.send(ready)
		synctest.Wait()
		lost = true
		if got := took(func() { c.finish(completed) }); got != reachable {
			t.Errorf("the end took %s", got)
		}
	})
}

func TestTheEndIsTriedAtOnceHoweverLongTheLastPauseWouldBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, tries := 200, 0
		c := away(t, time.Hour, func(*http.Request) (int, error) { tries++; return answer, nil })
		c.send(ready)
		synctest.Wait()
		answer = 503
		c.send(ready)
		time.Sleep(30 * time.Second) // pauses are of 5 s by now
		synctest.Wait()
		before := tries
		answer = 200
		if got := took(func() { c.finish(completed) }); got > 200*time.Millisecond || tries == before {
			t.Errorf("the end took %s, %d tries", got, tries-before)
		}
	})
}

func TestWhatMayPassIsTriedAgain(t *testing.T) {
	for _, status := range []int{500, 502, 503, 429, 408} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			c := away(t, time.Hour, func(*http.Request) (int, error) {
				if tries++; tries == 1 {
					return status, nil
				}
				return 204, nil
			})
			c.finish(completed)
			if tries != 2 {
				t.Errorf("%d: %d tries", status, tries)
			}
		})
	}
}

func TestPausesBetweenTriesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		start := time.Now()
		c := away(t, time.Hour, func(*http.Request) (int, error) {
			tries = append(tries, time.Since(start).Round(time.Millisecond))
			return 0, errAway
		})
		c.send(ready)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if want := "[0s 100ms 300ms 700ms 1.5s 3.1s 6.3s 11.3s 16.3s]"; fmt.Sprint(tries) != want {
			t.Errorf("tries at %v, want %s", tries, want)
		}
	})
}

func TestHeartbeatsComeAtTheirInterval(t *testing.T) {
	for heartbeat, want := range map[time.Duration]string{
		10 * time.Second:     "[Ready@0s Heartbeat@10s Heartbeat@20s Ready@25s Heartbeat@30s]",
		time.Nanosecond * 10: "", // as often as a second, not more
	} {
		synctest.Test(t, func(t *testing.T) {
			var got []string
			start := time.Now()
			c := away(t, heartbeat, func(r *http.Request) (int, error) {
				body, _ := io.ReadAll(r.Body)
				var report agent.Report
				if err := json.Unmarshal(body, &report); err != nil {
					t.Error(err)
				}
				for _, e := range report.Events {
					got = append(got, fmt.Sprintf("%s@%s", e.Type, time.Since(start).Round(time.Second)))
					if (e.Seq == 0) != (e.Type == berth.EventHeartbeat) {
						t.Errorf("%s", body)
					}
				}
				return 200, nil
			})
			c.send(ready)
			time.Sleep(25 * time.Second)
			c.send(ready)
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if want == "" && len(got) > 38 || want != "" && fmt.Sprint(got) != want {
				t.Errorf("got %v, want %s", got, want)
			}
		})
	}
}

package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// skewLimit is how far two clocks may be apart before it matters.
const skewLimit = 30 * time.Second

// checkClock compares the API server's clock with this machine's.
func (c *Client) checkClock(ctx context.Context) berth.CheckRow {
	ahead, err := c.clockAhead(ctx)
	if err != nil {
		return berth.CheckRow{What: "clock", Status: berth.CheckWarning, Detail: "can't be compared: " + err.Error()}
	}
	return clockRow(ahead)
}

func clockRow(ahead time.Duration) berth.CheckRow {
	row := berth.CheckRow{What: "clock", Status: berth.CheckOK, Detail: "the cluster's is the same as here, within " + max(ahead.Abs().Round(time.Second), time.Second).String()}
	if ahead.Abs() > skewLimit {
		direction := "ahead of"
		if ahead < 0 {
			direction = "behind"
		}
		row.Status = berth.CheckWarning
		row.Detail = fmt.Sprintf("the cluster's is %s %s this machine's: tokens and certificates may count as not yet valid or as expired, and times in logs don't match", ahead.Abs().Round(time.Second), direction)
		row.Remedy = "set this machine's clock (by NTP); if it is right, have the cluster's looked at"
	}
	return row
}

// clockAhead is by how much the API server's clock is ahead of this machine's,
// to a second: the Date header has no more.
func (c *Client) clockAhead(ctx context.Context) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.Server, "/")+"/version", nil)
	if err != nil {
		return 0, err
	}
	asked := time.Now()
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	took := time.Since(asked)
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	response.Body.Close()
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("the server does not tell its time")
	}
	// The header's fraction of a second is cut off: half of one is its mean.
	return date.Add(500 * time.Millisecond).Sub(asked.Add(took / 2)), nil
}

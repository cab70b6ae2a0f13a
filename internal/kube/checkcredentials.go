package kube

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/berth-run/berth"
)

// soon is how long before their end credentials are warned of.
const soon = 24 * time.Hour

// checkCredentials tells what lets us in, and for how long.
func (c *Client) checkCredentials(ctx context.Context) berth.CheckRow {
	renewed := false
	if held, ok := c.claims(); ok {
		granted, err := c.mayRenew(ctx, held)
		renewed = err == nil && granted
	}
	return credentialsRow(c.transport.current.Load().config, renewed, time.Now())
}

// credentialsRow tells what credentials are; renewed says that they are before
// their end, by Berth itself.
func credentialsRow(config *rest.Config, renewed bool, now time.Time) berth.CheckRow {
	row := berth.CheckRow{What: "credentials", Status: berth.CheckOK}
	var what string
	var ends time.Time
	switch {
	case config.ExecProvider != nil:
		row.Detail = "from the program " + config.ExecProvider.Command + ", which is run again when they end"
		return row
	case config.BearerToken != "":
		what, ends = "a token", tokenEnd(config.BearerToken)
	case len(config.CertData) > 0:
		what, ends = "a client certificate", certificateEnd(config.CertData)
	default:
		row.Detail = "of another kind; when they end is not known"
		return row
	}
	if ends.IsZero() {
		row.Detail = what + " that says no end: it holds until it is withdrawn"
		return row
	}
	left := ends.Sub(now)
	row.Detail = fmt.Sprintf("%s until %s, which is in %s", what, ends.UTC().Format("2006-01-02 15:04Z"), roughly(left))
	switch {
	case renewed:
		row.Detail += "; renewed by itself before"
	case left < soon:
		row.Status = berth.CheckWarning
		row.Remedy = "have new ones made in time (berth create-kubeconfig, or your cluster's login command) and put in place of these; they are read again by themselves"
	}
	return row
}

// tokenEnd is when a token ends by its own claim; zero when it says nothing.
func tokenEnd(token string) time.Time {
	if claims, ok := readToken(token); ok && claims.Expires > 0 {
		return time.Unix(claims.Expires, 0)
	}
	return time.Time{}
}

func certificateEnd(data []byte) time.Time {
	if block, _ := pem.Decode(data); block != nil {
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			return certificate.NotAfter
		}
	}
	return time.Time{}
}

// roughly says how long something is as people do.
func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

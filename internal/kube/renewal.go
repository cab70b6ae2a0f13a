package kube

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

// Tokens keeps renewed tokens where the next process finds them: what they
// were renewed from, a file or infra.yml, is a person's and stays as it is.
type Tokens interface {
	// RenewedToken returns what KeepToken kept last; empty where nothing was.
	RenewedToken(ctx context.Context, infrastructure string) (source, token string, err error)

	// KeepToken keeps the token that came of a source.
	KeepToken(ctx context.Context, infrastructure, source, token string) error
}

// leastTTL is Kubernetes' own least life of a token.
const leastTTL = 10 * time.Minute

// renewRetry is how long to wait after a renewal that failed, at most: a token
// is renewed when half of its life is over, so there is time.
const renewRetry = time.Minute

// claims are what a service account's token tells about itself.
type claims struct {
	namespace, account string
	issued, expires    time.Time
}

// readClaims reads the token of a service account that expires. It verifies
// nothing: that is the API server's.
func readClaims(token string) (claims, bool) {
	read, ok := readToken(token)
	if !ok || read.Expires <= read.Issued || read.Issued <= 0 {
		return claims{}, false
	}
	rest, ok := strings.CutPrefix(read.Subject, "system:serviceaccount:")
	if !ok {
		return claims{}, false
	}
	c := claims{issued: time.Unix(read.Issued, 0), expires: time.Unix(read.Expires, 0)}
	c.namespace, c.account, ok = strings.Cut(rest, ":")
	return c, ok && c.account != ""
}

// tokenClaims are what any JSON Web Token may tell; zero for what it doesn't.
type tokenClaims struct {
	Subject string `json:"sub"`
	Issued  int64  `json:"iat"`
	Expires int64  `json:"exp"`
}

// readToken reads a JSON Web Token, without verifying it.
func readToken(token string) (tokenClaims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return tokenClaims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return tokenClaims{}, false
	}
	var read tokenClaims
	err = json.Unmarshal(payload, &read)
	return read, err == nil
}

// life is how long such a token is valid.
func (c claims) life() time.Duration { return c.expires.Sub(c.issued) }

// due is when it is to be renewed.
func (c claims) due() time.Time { return c.issued.Add(c.life() / 2) }

// token returns the token of the credentials, where it is a literal one: one
// from a file or a plugin is renewed by whoever keeps those.
func (a *access) token() string {
	if a.config.BearerTokenFile != "" || a.config.ExecProvider != nil {
		return ""
	}
	return a.config.BearerToken
}

// renewed returns credentials with the token that was renewed from them, if
// there is one that holds for longer.
func (a *access) renewed(tokens Tokens, infrastructure string) *access {
	own, ok := readClaims(a.token())
	if tokens == nil || !ok {
		return a
	}
	a.source = hex.EncodeToString(a.fingerprint[:])
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	source, token, err := tokens.RenewedToken(ctx, infrastructure)
	if next, ok := readClaims(token); err != nil || !ok || source != a.source || !next.expires.After(own.expires) {
		return a
	}
	return a.withToken(token)
}

func (a *access) withToken(token string) *access {
	next := *a
	config := *a.config
	config.BearerToken = token
	next.config = &config
	seen := fingerprint{}
	seen.add(a.fingerprint[:], []byte(token))
	next.fingerprint = seen.sum()
	return &next
}

// claims are those of the token in use; false where it has none that expire.
func (c *Client) claims() (claims, bool) {
	return readClaims(c.transport.current.Load().token())
}

// keepToken renews the token of the credentials, each time that half of its
// life is over, until ctx ends. It does so only where that is granted; what is
// refused once is not asked for again with the same token.
func (c *Client) keepToken(ctx context.Context) {
	if c.options.Tokens == nil {
		return
	}
	log := c.options.Log
	wait := time.Duration(0)
	refused := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		// Credentials may be exchanged at any time, so they are looked at anew.
		wait = renewRetry
		used := c.transport.current.Load()
		token := used.token()
		held, ok := readClaims(token)
		if !ok || token == refused {
			continue
		}
		if left := time.Until(held.due()); left > 0 {
			wait = min(left, renewRetry)
			continue
		}
		expires, err := c.renewToken(ctx, used, held)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && expires.IsZero():
			refused = token
			log.Warn("the token expires, and may not be renewed: get a new kubeconfig in time, or ask for one that may be (berth create-kubeconfig --ttl)", "infrastructure", c.Name, "expires", held.expires.UTC().Format(time.RFC3339))
		case err == nil:
			log.Info("the token was renewed", "infrastructure", c.Name, "expires", expires.UTC().Format(time.RFC3339))
			wait = 0
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			refused = token
			fallthrough
		default:
			log.Warn("the token can't be renewed", "infrastructure", c.Name, "expires", held.expires.UTC().Format(time.RFC3339), "error", err)
		}
	}
}

// mayRenew asks whether the account of a token may renew it.
func (c *Client) mayRenew(ctx context.Context, held claims) (bool, error) {
	right, _ := permissions.Find("create", "", "serviceaccounts", "token")
	return c.allowed(ctx, right, held.namespace, held.account)
}

// renewToken asks for a token of the same life, keeps it and uses it. No time
// and no error means that it may not be asked for.
func (c *Client) renewToken(ctx context.Context, used *generation, held claims) (expires time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if granted, err := c.mayRenew(ctx, held); err != nil || !granted {
		return time.Time{}, err
	}
	seconds := int64(max(held.life(), leastTTL) / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := c.Clientset.CoreV1().ServiceAccounts(held.namespace).CreateToken(ctx, held.account, request, metav1.CreateOptions{})
	if err != nil {
		return time.Time{}, err
	}
	next, ok := readClaims(answer.Status.Token)
	if !ok || !next.expires.After(held.expires) {
		return time.Time{}, berth.Errorf(berth.CodeUnavailable, "the cluster gave a token that does not hold for longer")
	}
	if err := c.options.Tokens.KeepToken(ctx, c.Name, used.source, answer.Status.Token); err != nil {
		return time.Time{}, err
	}
	return next.expires, c.transport.exchange(used, used.withToken(answer.Status.Token))
}

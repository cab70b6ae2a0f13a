package dashboard

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"time"

	"github.com/berth-run/berth"
)

const (
	// sessionTime is how long a login is good.
	sessionTime = 8 * time.Hour
	// minKey is how many bytes sessions are sealed with, at least.
	minKey = 32
	// maxToken bounds what is taken for a token: those of Berth have 49 bytes.
	maxToken = 512
	// maxSealed bounds what is taken for a session.
	maxSealed = 1024
	// purpose keeps the key of sessions apart from others of the same secret.
	purpose = "berth dashboard session 1"
)

// session is a login to the dashboard of a cluster.
type session struct {
	cluster string
	token   berth.Secret
	expires time.Time
	id      [sha256.Size]byte // the digest of what was sealed, however it is written
}

// sealer makes sessions unreadable, and knows those again that it sealed.
type sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) *sealer {
	derived, err := hkdf.Key(sha256.New, key, nil, purpose, 32)
	if err != nil {
		panic(err) // of a wrong length of what is derived
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &sealer{aead}
}

// seal returns a session as the value of a cookie: the time it ends and its
// token, encrypted, good for its cluster alone.
func (s *sealer) seal(of session) string {
	plain := binary.BigEndian.AppendUint64(nil, uint64(of.expires.Unix()))
	plain = append(plain, of.token.Reveal()...)
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, plain, []byte(of.cluster)))
}

// open returns the session of a sealed form. Not ok: one that has expired, is of
// another cluster, or was never sealed here.
func (s *sealer) open(sealed, cluster string, now time.Time) (session, bool) {
	if len(sealed) > maxSealed {
		return session{}, false
	}
	box, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(box) < s.aead.Overhead() {
		return session{}, false
	}
	plain, err := s.aead.Open(nil, nil, box, []byte(cluster))
	if err != nil || len(plain) <= 8 {
		return session{}, false
	}
	expires := time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)
	if !now.Before(expires) {
		return session{}, false
	}
	return session{cluster: cluster, token: berth.Secret(plain[8:]), expires: expires, id: sha256.Sum256(box)}, true
}

// session returns the login that a request is made with.
func (h *handler) session(r *http.Request, cluster string) (session, bool) {
	// A page of another cluster can leave cookies of that name, which may come
	// before ours, but none that opens.
	for _, cookie := range r.CookiesNamed(h.cookieName()) {
		if s, ok := h.sealer.open(cookie.Value, cluster, time.Now()); ok {
			return s, true
		}
	}
	return session{}, false
}

// cookieName is that of the sessions. By its prefix browsers take it from a host
// by TLS alone; where each cluster has a host, from that host alone.
func (h *handler) cookieName() string {
	const name = "berth-dashboard"
	switch {
	case h.options.Secure && h.options.Domain != "":
		return "__Host-" + name
	case h.options.Secure:
		return "__Secure-" + name
	}
	return name
}

// cookie holds a session. SameSite=Strict: other sites can't make a browser show
// it; see askToLogIn for links from them.
func (h *handler) cookie(cluster, value string, age time.Duration) *http.Cookie {
	c := &http.Cookie{
		Name: h.cookieName(), Value: value, Path: "/" + cluster + "/", MaxAge: int(age.Seconds()),
		HttpOnly: true, Secure: h.options.Secure, SameSite: http.SameSiteStrictMode,
	}
	if h.options.Secure && h.options.Domain != "" {
		c.Path = "/" // as the prefix of its name demands
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

package berth

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// Token is what a caller shows to a server. Several may have one name, which
// is the owner of what is submitted with any of them: a new one is made before
// the old one is revoked, or one that only reads beside one that writes.
type Token struct {
	ID              string     `json:"id"`
	Name            string     `json:"name"`
	Role            Role       `json:"role"`
	Infrastructures []string   `json:"infrastructures"` // empty: all
	CreatedAt       time.Time  `json:"createdAt"`
	ExpiresAt       *time.Time `json:"expiresAt"`
	LastUsedAt      *time.Time `json:"lastUsedAt"` // to within some minutes
	RevokedAt       *time.Time `json:"revokedAt"`

	// Secret is what is sent. It is there once, in the answer to its making:
	// what is stored doesn't tell it.
	Secret Secret `json:"-"`
}

// TokenRequest describes a token to be made.
type TokenRequest struct {
	Key             string // makes asking twice the same as once; one is made when it is empty
	Name            string
	Role            Role
	Infrastructures []string      // empty: all
	TTL             time.Duration // 0: it doesn't expire
}

// Caller is who shows a token.
func (t *Token) Caller() Caller {
	return Caller{Name: t.Name, Role: t.Role, Infrastructures: t.Infrastructures}
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._@-]{0,61}[A-Za-z0-9])?$`)

// tokenKey is the form of a request's key, which becomes the token's id.
var tokenKey = regexp.MustCompile(`^[a-z0-9]{8,64}$`)

// Validate says what is wrong with a request. CodeInvalid.
func (r *TokenRequest) Validate() error {
	if !tokenName.MatchString(r.Name) {
		return Errorf(CodeInvalid, "token name %q: use 1 to 63 letters, digits, dots, dashes, @ and underscores, such as ann or ci@site-a", r.Name)
	}
	if r.Key != "" && !tokenKey.MatchString(r.Key) {
		return Errorf(CodeInvalid, "token key %q: use 8 to 64 small letters and digits", r.Key)
	}
	if !slices.Contains(Roles, r.Role) {
		return Errorf(CodeInvalid, "role %q: choose %s", r.Role, joinRoles(", "))
	}
	for _, name := range r.Infrastructures {
		if err := ValidateInfrastructureName(name); err != nil {
			return Errorf(CodeInvalid, "%w", err)
		}
	}
	if r.TTL < 0 || r.TTL > 0 && r.TTL < time.Second {
		return Errorf(CodeInvalid, "time to live %s: use 1s or more, or none for a token that doesn't expire", r.TTL)
	}
	return nil
}

func joinRoles(separator string) string {
	var names []string
	for _, role := range Roles {
		names = append(names, string(role))
	}
	return strings.Join(names, separator)
}

-- The providers that workers of this version know: what worker/src/provider says of itself, in SQL. A test compares the two.

INSERT INTO sms_outbox.provider (slug, name, looks_up, config) VALUES
('taqnyat-sms', 'Taqnyat', false, '{
     "bearer_token": {"type": "string", "required": true, "secret": true, "description": "Bearer token of the application, from the Taqnyat portal."},
     "sender": {"type": "string", "required": false, "secret": false, "description": "Sender name or number of messages that name none, as registered with the provider."},
     "base_url": {"type": "string", "required": false, "secret": false, "description": "Address of the API instead of the provider''s own, for a proxy or the sandbox; https, or http on the loopback interface."},
     "allow_http": {"type": "boolean", "required": false, "secret": false, "description": "Allow plain http to a host other than the loopback interface; credentials then cross the network unencrypted."}}'),
('mora-sms', 'Mora', false, '{
     "api_key": {"type": "string", "required": true, "secret": true, "description": "API key of the account, from the Mora portal."},
     "username": {"type": "string", "required": true, "secret": false, "description": "User name of the account."},
     "sender": {"type": "string", "required": false, "secret": false, "description": "Sender name or number of messages that name none, as registered with the provider."},
     "base_url": {"type": "string", "required": false, "secret": false, "description": "Address of the API instead of the provider''s own, for a proxy or the sandbox; https, or http on the loopback interface."},
     "allow_http": {"type": "boolean", "required": false, "secret": false, "description": "Allow plain http to a host other than the loopback interface; credentials then cross the network unencrypted."}}'),
('twilio-sms', 'Twilio', true, '{
     "account_sid": {"type": "string", "required": true, "secret": false, "description": "Account SID, AC and 32 hexadecimal digits, from the Twilio console."},
     "auth_token": {"type": "string", "required": false, "secret": true, "description": "Auth token of the account; or use an API key."},
     "api_key_sid": {"type": "string", "required": false, "secret": false, "description": "SID of an API key, used instead of the auth token."},
     "api_key_secret": {"type": "string", "required": false, "secret": true, "description": "Secret of that API key."},
     "sender": {"type": "string", "required": false, "secret": false, "description": "Number, short code or alphanumeric sender of messages that name none; or use a messaging service."},
     "messaging_service_sid": {"type": "string", "required": false, "secret": false, "description": "Messaging service, MG and 32 hexadecimal digits, that chooses the sender of messages that name none."},
     "base_url": {"type": "string", "required": false, "secret": false, "description": "Address of the API instead of the provider''s own, for a proxy or the sandbox; https, or http on the loopback interface."},
     "allow_http": {"type": "boolean", "required": false, "secret": false, "description": "Allow plain http to a host other than the loopback interface; credentials then cross the network unencrypted."}}'),
('generic-http', 'HTTP gateway', false, '{
     "url": {"type": "string", "required": true, "secret": false, "description": "Address that takes the request; https, or http with allow_http. Workers send into their own network, loopback included, only with --allow-address."},
     "method": {"type": "string", "required": false, "secret": false, "description": "POST (the default), PUT or GET."},
     "format": {"type": "string", "required": false, "secret": false, "description": "How the fields of `body` are sent: json (the default), form, or query (in the address, as GET needs it)."},
     "headers": {"type": "object", "required": false, "secret": true, "description": "Header names and templates of their values."},
     "secrets": {"type": "object", "required": false, "secret": true, "description": "Names and texts that templates use as {{ secrets.name }}."},
     "body": {"type": "object", "required": true, "secret": false, "description": "Fields of the request; texts are templates with mobile (+966…), digits (966…), message, sender, reference and secrets."},
     "success": {"type": "object", "required": true, "secret": false, "description": "What proves that the message was taken: `status`, a list of 2xx statuses, and for a proof in the answer `pointer`, a JSON pointer, and `values`, the values there that mean success."},
     "message_id": {"type": "string", "required": false, "secret": false, "description": "JSON pointer to the gateway''s id of the message; then an answer without one is no success."},
     "error_code": {"type": "string", "required": false, "secret": false, "description": "JSON pointer to the gateway''s error code."},
     "outcomes": {"type": "object", "required": false, "secret": false, "description": "Error codes and what each means: not_sent, refused_recipient, refused_content, refused_account, throttled or unclear."},
     "sender": {"type": "string", "required": false, "secret": false, "description": "Sender name or number of messages that name none, as registered with the provider."},
     "allow_http": {"type": "boolean", "required": false, "secret": false, "description": "Allow plain http to a host other than the loopback interface; credentials then cross the network unencrypted."}}'),
('sandbox', 'Sandbox', true, '{
     "token": {"type": "string", "required": true, "secret": true, "description": "Any text: the sandbox takes it as the name of the account."},
     "sender": {"type": "string", "required": false, "secret": false, "description": "Sender name or number of messages that name none, as registered with the provider."},
     "base_url": {"type": "string", "required": false, "secret": false, "description": "Address of the API instead of the provider''s own, for a proxy or the sandbox; https, or http on the loopback interface."},
     "allow_http": {"type": "boolean", "required": false, "secret": false, "description": "Allow plain http to a host other than the loopback interface; credentials then cross the network unencrypted."}}');

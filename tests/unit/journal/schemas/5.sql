-- A journal of schema 5, as its agent wrote it. Never edited: PRAGMA user_version is 5.
BEGIN TRANSACTION;
CREATE TABLE attachments (
        attachment_id TEXT PRIMARY KEY,
        volume_id TEXT NOT NULL,
        promised INTEGER NOT NULL,
        body TEXT NOT NULL
    , instance_id TEXT, multiattach INTEGER, device TEXT, attachment TEXT);
INSERT INTO "attachments" VALUES('att-1','aaaaaaaa-0000-4000-8000-000000000002',1,'{"operation_id":"00000000-0000-4000-9000-000000000001","disk":{"target_dev":"vdb","alias":"ua-att-1"}}','00000000-0000-4000-8000-000000000002',1,'{"path":"/dev/disk/by-id/wwn-0x1","identity":{"wwn":"0x1"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}','{"attachment_id":"att-1","instance_id":"00000000-0000-4000-8000-000000000002","volume_id":"aaaaaaaa-0000-4000-8000-000000000002","generation":1,"connection_info":{"driver_volume_type":"iscsi","data":{"auth_password":"secret-of-1","target_portal":"192.0.2.1:3260","target_iqn":"iqn.2026-01.example:1","target_lun":1,"auth_username":"chap"}},"multiattach":true}');
INSERT INTO "attachments" VALUES('att-2','aaaaaaaa-0000-4000-8000-000000000003',0,'{"operation_id":"00000000-0000-4000-9000-000000000002","disk":{"target_dev":"vdc","alias":"ua-att-2"}}','00000000-0000-4000-8000-000000000003',1,'{"path":"/dev/disk/by-id/wwn-0x2","identity":{"wwn":"0x2"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}','{"attachment_id":"att-2","instance_id":"00000000-0000-4000-8000-000000000003","volume_id":"aaaaaaaa-0000-4000-8000-000000000003","generation":2,"connection_info":{"driver_volume_type":"iscsi","data":{"auth_password":"secret-of-2","target_portal":"192.0.2.1:3260","target_iqn":"iqn.2026-01.example:2","target_lun":2,"auth_username":"chap"}},"multiattach":true}');
CREATE TABLE fences (
        attachment_id TEXT PRIMARY KEY,
        newest INTEGER,
        detached INTEGER,
        seen_at REAL NOT NULL
    , volume_id TEXT, source TEXT);
INSERT INTO "fences" VALUES('att-1',1,NULL,100.0,'aaaaaaaa-0000-4000-8000-000000000002','/dev/disk/by-id/wwn-0x1');
INSERT INTO "fences" VALUES('att-9',9,9,100.0,NULL,NULL);
CREATE TABLE leftovers (
        volume_id TEXT PRIMARY KEY,
        body TEXT NOT NULL
    );
CREATE TABLE operation_parts (
        operation_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        attachment_id TEXT NOT NULL,
        volume_id TEXT,
        instance_id TEXT NOT NULL,
        multiattach INTEGER NOT NULL,
        open INTEGER NOT NULL,
        promised INTEGER NOT NULL,
        device TEXT,
        attachment TEXT,
        body TEXT NOT NULL,
        PRIMARY KEY (operation_id, number)
    );
INSERT INTO "operation_parts" VALUES('00000000-0000-4000-9000-000000000001',0,'att-1','aaaaaaaa-0000-4000-8000-000000000002','00000000-0000-4000-8000-000000000002',1,0,0,'{"path":"/dev/disk/by-id/wwn-0x1","identity":{"wwn":"0x1"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}',NULL,'{"attachment_id":"att-1","instance_id":"00000000-0000-4000-8000-000000000002","volume_id":"aaaaaaaa-0000-4000-8000-000000000002","role":"joins","generation":1,"promised":false,"known":{"device":{"path":"/dev/disk/by-id/wwn-0x1","identity":{"wwn":"0x1"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}}}');
INSERT INTO "operation_parts" VALUES('00000000-0000-4000-9000-000000000003',0,'att-3','aaaaaaaa-0000-4000-8000-000000000004','00000000-0000-4000-8000-000000000004',1,1,1,'{"path":"/dev/disk/by-id/wwn-0x3","identity":{"wwn":"0x3"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}','{"attachment_id":"att-3","instance_id":"00000000-0000-4000-8000-000000000004","volume_id":"aaaaaaaa-0000-4000-8000-000000000004","generation":3,"connection_info":{"driver_volume_type":"iscsi","data":{"auth_password":"secret-of-3","target_portal":"192.0.2.1:3260","target_iqn":"iqn.2026-01.example:3","target_lun":3,"auth_username":"chap"}},"multiattach":true}','{"attachment_id":"att-3","instance_id":"00000000-0000-4000-8000-000000000004","volume_id":"aaaaaaaa-0000-4000-8000-000000000004","role":"joins","generation":3,"promised":true,"known":{"device":{"path":"/dev/disk/by-id/wwn-0x3","identity":{"wwn":"0x3"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}}}');
INSERT INTO "operation_parts" VALUES('00000000-0000-4000-9000-000000000004',0,'att-4','aaaaaaaa-0000-4000-8000-000000000005','00000000-0000-4000-8000-000000000005',1,1,0,NULL,'{"attachment_id":"att-4","instance_id":"00000000-0000-4000-8000-000000000005","volume_id":"aaaaaaaa-0000-4000-8000-000000000005","generation":4,"connection_info":{"driver_volume_type":"iscsi","data":{"auth_password":"secret-of-4","target_portal":"192.0.2.1:3260","target_iqn":"iqn.2026-01.example:4","target_lun":4,"auth_username":"chap"}},"multiattach":true}','{"attachment_id":"att-4","instance_id":"00000000-0000-4000-8000-000000000005","volume_id":"aaaaaaaa-0000-4000-8000-000000000005","role":"joins","generation":4,"promised":false,"known":{}}');
INSERT INTO "operation_parts" VALUES('00000000-0000-4000-9000-000000000005',0,'att-5',NULL,'00000000-0000-4000-8000-000000000006',0,1,0,NULL,NULL,'{"attachment_id":"att-5","instance_id":"00000000-0000-4000-8000-000000000006","volume_id":null,"role":"leaves","generation":5,"promised":false,"known":{}}');
CREATE TABLE operations (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        operation_id TEXT NOT NULL UNIQUE,
        open INTEGER NOT NULL,
        cancel_wanted INTEGER NOT NULL DEFAULT 0,
        updated_at REAL NOT NULL,
        body TEXT NOT NULL
    );
INSERT INTO "operations" VALUES(1,'00000000-0000-4000-9000-000000000001',0,0,111.0,'{"operation_id":"00000000-0000-4000-9000-000000000001","verb":"attach","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","instance_id":"00000000-0000-4000-8000-000000000002","steps":["check-guest","connect-volume","verify-identity","plug-disk","plug-other-half","note-in-domain"],"commit":3,"created_at":101.0,"not_after":9000000000.0,"sequence":0,"deadline_at":null,"state":"done","direction":"committed","position":6,"intended":5,"executing":false,"deaths":0,"failures":0,"cancel_wanted":false,"known":{},"waiting_for":null,"wake_at":null,"cause":null,"trouble":null,"result":{"device":null},"warnings":[],"updated_at":111.0,"subjects":[]}');
INSERT INTO "operations" VALUES(2,'00000000-0000-4000-9000-000000000003',1,1,113.0,'{"operation_id":"00000000-0000-4000-9000-000000000003","verb":"attach","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","instance_id":"00000000-0000-4000-8000-000000000004","steps":["check-guest","connect-volume","verify-identity","plug-disk","plug-other-half","note-in-domain"],"commit":3,"created_at":103.0,"not_after":9000000000.0,"sequence":0,"deadline_at":null,"state":"running","direction":"forward","position":2,"intended":2,"executing":true,"deaths":1,"failures":0,"cancel_wanted":false,"known":{},"waiting_for":null,"wake_at":null,"cause":null,"trouble":null,"result":null,"warnings":[],"updated_at":113.0,"subjects":[]}');
INSERT INTO "operations" VALUES(3,'00000000-0000-4000-9000-000000000004',1,0,114.0,'{"operation_id":"00000000-0000-4000-9000-000000000004","verb":"attach","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","instance_id":"00000000-0000-4000-8000-000000000005","steps":["check-guest","connect-volume","verify-identity","plug-disk","plug-other-half","note-in-domain"],"commit":3,"created_at":104.0,"not_after":9000000000.0,"sequence":0,"deadline_at":null,"state":"unsettled","direction":"undoing","position":0,"intended":1,"executing":false,"deaths":0,"failures":2,"cancel_wanted":false,"known":{"undo_from":1},"waiting_for":"another try of connect-volume","wake_at":130.0,"cause":{"code":"plug-refused","retriable":false,"detail":"refused"},"trouble":{"code":"connect-failed","retriable":true,"detail":"stays"},"result":null,"warnings":[],"updated_at":114.0,"subjects":[]}');
INSERT INTO "operations" VALUES(4,'00000000-0000-4000-9000-000000000005',1,0,115.0,'{"operation_id":"00000000-0000-4000-9000-000000000005","verb":"detach","digest":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","instance_id":"00000000-0000-4000-8000-000000000006","steps":["unplug-disk","forget-disk","note-in-domain"],"commit":0,"created_at":105.0,"not_after":9000000000.0,"sequence":0,"deadline_at":null,"state":"accepted","direction":"forward","position":0,"intended":-1,"executing":false,"deaths":0,"failures":0,"cancel_wanted":false,"known":{},"waiting_for":null,"wake_at":null,"cause":null,"trouble":null,"result":null,"warnings":[],"updated_at":115.0,"subjects":[]}');
CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        event_type TEXT NOT NULL,
        body TEXT NOT NULL
    );
INSERT INTO "outbox" VALUES(1,'attachment.attach.end','{"version": "1.0", "operation_id": "x"}');
CREATE TABLE quarantine (
        volume_id TEXT PRIMARY KEY,
        body TEXT NOT NULL
    );
INSERT INTO "quarantine" VALUES('aaaaaaaa-0000-4000-8000-000000000007','{"device": {"path": "/dev/disk/by-id/wwn-0x6", "identity": {"wwn": "0x6"}, "size_bytes": 1048576, "device_info": {"path": "/dev/sdb", "type": "block"}}, "reason": "wwn is 0x7, expected 0x6", "at": 105.0}');
CREATE TABLE volumes (
        volume_id TEXT PRIMARY KEY,
        lane TEXT NOT NULL,
        connected INTEGER NOT NULL,
        device TEXT
    );
INSERT INTO "volumes" VALUES('aaaaaaaa-0000-4000-8000-000000000002','other',1,'{"path":"/dev/disk/by-id/wwn-0x1","identity":{"wwn":"0x1"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}');
INSERT INTO "volumes" VALUES('aaaaaaaa-0000-4000-8000-000000000003','other',1,'{"path":"/dev/disk/by-id/wwn-0x2","identity":{"wwn":"0x2"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}');
INSERT INTO "volumes" VALUES('aaaaaaaa-0000-4000-8000-000000000004','other',1,'{"path":"/dev/disk/by-id/wwn-0x3","identity":{"wwn":"0x3"},"size_bytes":1048576,"device_info":{"path":"/dev/sdb","type":"block"}}');
INSERT INTO "volumes" VALUES('aaaaaaaa-0000-4000-8000-000000000005','other',1,NULL);
CREATE INDEX attachments_of_volume ON attachments (volume_id);
CREATE INDEX parts_of_attachment ON operation_parts (attachment_id, open);
CREATE INDEX parts_of_volume ON operation_parts (volume_id, open);
CREATE INDEX parts_of_instance ON operation_parts (instance_id, open);
CREATE INDEX parts_open ON operation_parts (open);
CREATE INDEX operations_open ON operations (open, updated_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',1);
INSERT INTO "sqlite_sequence" VALUES('operations',4);
COMMIT;
PRAGMA user_version = 5;
